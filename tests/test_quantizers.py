"""Every quantizer against its formula; zeros, window edges and their neighbours are inputs."""

import math

import numpy as np
import pytest
import torch

from signbit import quantizers as q


def _around(value: float, dtype: torch.dtype) -> list[float]:
    """The value and its two neighbours in floating point."""
    x = torch.tensor(value, dtype=dtype)
    step = torch.tensor(math.inf, dtype=dtype)
    return [torch.nextafter(x, -step).item(), value, torch.nextafter(x, step).item()]


def _grid(dtype: torch.dtype, *edges: float) -> torch.Tensor:
    points = [0.0, -0.0, 1e-30, -1e-30, 7.0, -7.0, 100.0, -100.0]
    for edge in (0.5, 1.0, *edges):
        points += _around(edge, dtype) + _around(-edge, dtype)
    points += torch.linspace(-3, 3, 41).tolist()
    return torch.tensor(points, dtype=dtype)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _approx(x: float) -> float:
    if -1 <= x < 0:
        return 2 + 2 * x
    return 2 - 2 * x if 0 <= x < 1 else 0.0


def _bell(k: float):
    return lambda x: 2 * k * _logistic(k * x) * (1 - _logistic(k * x))


def _swish(beta: float):
    def gradient(x: float) -> float:
        z = beta * x
        # cosh overflows beyond the table of floats, where the gradient is 0 to every digit.
        return 0.0 if abs(z) > 700 else beta * (2 - z * math.tanh(z / 2)) / (1 + math.cosh(z))

    return gradient


def _clipped(window: float):
    return lambda x: 1.0 if abs(x) <= window else 0.0


SURROGATES = [
    (q.ClippedIdentity(), _clipped(1.0)),
    (q.ClippedIdentity(0.5), _clipped(0.5)),
    (q.ClippedIdentity(1.3), _clipped(1.3)),
    (q.ApproxSign(), _approx),
    (q.SigmoidSign(), _bell(3.0)),
    (q.SigmoidSign(1.5), _bell(1.5)),
    (q.SwishSign(), _swish(5.0)),
    (q.SwishSign(2.0), _swish(2.0)),
    (q.IdentitySign(), lambda x: 1.0),
]


@pytest.mark.parametrize(("surrogate", "formula"), SURROGATES, ids=[repr(s) for s, _ in SURROGATES])
def test_surrogate_gradient_is_its_formula(surrogate, formula):
    x = _grid(torch.float64, 1.3).requires_grad_()
    upstream = torch.linspace(-2, 3, x.numel(), dtype=torch.float64)
    surrogate(x).backward(upstream)
    expected = [g * formula(v) for v, g in zip(x.tolist(), upstream.tolist(), strict=True)]
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("surrogate", [s for s, _ in SURROGATES[:1] + SURROGATES[3:]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_sign_is_exactly_plus_or_minus_one(surrogate, dtype):
    x = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 2.0, -2.0, math.inf, -math.inf, math.nan])
    y = surrogate(x.to(dtype))
    assert y.dtype == dtype
    assert y.tolist() == [1, 1, 1, -1, 1, -1, 1, -1, -1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("window", [0.1, 1.0, 1.3, 3.0])
def test_the_window_includes_its_edges(window, dtype):
    edge = torch.tensor([window, -window], dtype=dtype)
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    inside, outside = ((edge.view(bits) + step).view(dtype) for step in (-1, 1))
    # Enough numbers for vectors, and some that are left over.
    x = torch.cat([edge, inside, outside, outside.sign() * math.inf]).repeat(9).requires_grad_()
    q.ClippedIdentity(window)(x).sum().backward()
    assert x.grad.tolist() == [1, 1, 1, 1, 0, 0, 0, 0] * 9


def test_swish_gradient_is_the_derivative_of_sign_swish():
    beta = 5.0
    x = torch.linspace(-2, 2, 101, dtype=torch.float64, requires_grad=True)
    s = torch.sigmoid(beta * x)
    (derivative,) = torch.autograd.grad((2 * s * (1 + beta * x * (1 - s)) - 1).sum(), x)
    q.SwishSign(beta)(x).sum().backward()
    torch.testing.assert_close(x.grad, derivative, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["clipped_identity", "approx_sign", "sigmoid", "swish", "identity"]
)
def test_sign_operations_pass_torch_library_checks(name):
    # opcheck compares registrations (schema, fake tensors, autograd), not formulas.
    op = {
        "clipped_identity": torch.ops.signbit.sign_clipped_identity,
        "approx_sign": torch.ops.signbit.sign_approx,
        "sigmoid": torch.ops.signbit.sign_sigmoid,
        "swish": torch.ops.signbit.sign_swish,
        "identity": torch.ops.signbit.sign_identity,
    }[name]
    x = torch.randn(2, 3, 4, requires_grad=True)
    torch.library.opcheck(op.default, (x, 1.5))
    strided = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    torch.library.opcheck(op.default, (strided, 1.5))


def test_get_surrogate_by_name_passes_parameters():
    assert repr(q.get_surrogate("clipped_identity", window=1.25)) == "ClippedIdentity(window=1.25)"
    assert repr(q.get_surrogate("clipped_identity")) == "ClippedIdentity(window=1)"
    assert repr(q.get_surrogate("approx_sign")) == "ApproxSign()"
    assert repr(q.get_surrogate("sigmoid", k=2.0)) == "SigmoidSign(k=2)"
    assert repr(q.get_surrogate("sigmoid")) == "SigmoidSign(k=3)"
    assert repr(q.get_surrogate("swish")) == "SwishSign(beta=5)"
    assert repr(q.get_surrogate("identity")) == "IdentitySign()"
    ready = q.ApproxSign()
    assert q.get_surrogate(ready) is ready


def test_get_surrogate_refuses():
    with pytest.raises(ValueError, match="did you mean 'approx_sign'"):
        q.get_surrogate("aprox_sign")
    with pytest.raises(ValueError, match="already made"):
        q.get_surrogate(q.ApproxSign(), window=1.0)
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="window"):
            q.ClippedIdentity(value)
        with pytest.raises(ValueError, match="k must"):
            q.SigmoidSign(value)
        with pytest.raises(ValueError, match="beta"):
            q.SwishSign(value)


# --- weights ---


def _latent(*edges: float) -> torch.Tensor:
    """A weight [4, ...] whose grid contains zeros and edges; the last channel is all zeros."""
    grid = _grid(torch.float64, *edges)
    grid = grid[: grid.numel() // 3 * 3].view(3, -1, 1)
    return torch.cat([grid, torch.zeros_like(grid[:1])])


@pytest.mark.parametrize("make", [q.PlainSign, q.MeanAbsScale, lambda w: q.LearnedScale(4, w)])
@pytest.mark.parametrize("window", [1.0, 0.5, 1.3])
def test_weight_binarizer_signs_and_gradient(make, window):
    weight = _latent(1.3).requires_grad_()
    quantizer = make(window).double()
    signs, scale = quantizer(weight)
    assert torch.equal(signs, torch.where(weight >= 0, 1.0, -1.0))
    if scale is None:
        scale = torch.ones(4, dtype=torch.float64)
    upstream = torch.randn(weight.shape, dtype=torch.float64)
    (signs * scale.view(4, 1, 1)).backward(upstream)
    expected = upstream * scale.detach().view(4, 1, 1) * (weight.detach().abs() <= window)
    torch.testing.assert_close(weight.grad, expected, rtol=0, atol=0)


def test_scales_of_weight_binarizers():
    weight = torch.tensor([[1.0, -3.0], [0.0, -0.0], [0.5, 0.25]], requires_grad=True)
    assert q.PlainSign()(weight)[1] is None
    scale = q.MeanAbsScale()(weight)[1]
    assert scale.tolist() == [2.0, 0.0, 0.375]
    assert not scale.requires_grad
    learned = q.LearnedScale(3)
    assert learned(weight)[1].tolist() == [2.0, 0.0, 0.375]


def test_learned_scale_starts_once_and_is_trained():
    learned = q.LearnedScale(2)
    learned.init_from(torch.tensor([[2.0, -2.0], [1.0, 3.0]]))
    signs, scale = learned(torch.tensor([[5.0, -5.0], [5.0, 5.0]]))
    assert scale.tolist() == [2.0, 2.0]
    (signs * scale.view(2, 1)).backward(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert learned.scale.grad.tolist() == [1.0 - 2.0, 3.0 + 4.0]
    fresh = q.LearnedScale(2)
    fresh.load_state_dict(learned.state_dict())
    assert fresh(torch.full((2, 2), 9.0))[1].tolist() == [2.0, 2.0]
    with pytest.raises(ValueError, match="2 channels, the weight 3"):
        learned(torch.zeros(3, 2))


def test_progressive_sign_is_soft_in_training_alone():
    weight = torch.tensor([[2.0, 0.3], [-0.0, -0.01]], requires_grad=True)
    quantizer = q.ProgressiveSign()
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    assert torch.equal(quantizer(weight)[0], signs)
    quantizer.set_temperature(0.5)
    soft, scale = quantizer(weight)
    assert scale is None
    torch.testing.assert_close(soft, torch.tensor([[1.0, 0.6], [0.0, -0.02]]))
    upstream = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    soft.backward(upstream)
    assert torch.equal(weight.grad, upstream)
    quantizer.eval()
    assert torch.equal(quantizer(weight)[0], signs)
    quantizer.train().set_temperature(0)
    weight.grad = None
    bits = quantizer(weight)[0]
    assert torch.equal(bits, signs)
    bits.backward(upstream)
    assert torch.equal(weight.grad, upstream)
    assert not quantizer.state_dict()
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature"):
            quantizer.set_temperature(bad)


def test_get_weight_quantizer():
    assert isinstance(q.get_weight_quantizer("progressive", 4), q.ProgressiveSign)
    assert isinstance(q.get_weight_quantizer("sign", 4), q.PlainSign)
    assert isinstance(q.get_weight_quantizer("mean_abs", 4), q.MeanAbsScale)
    assert q.get_weight_quantizer("learned", 4).scale.shape == (4,)
    with pytest.raises(ValueError, match="did you mean 'mean_abs'"):
        q.get_weight_quantizer("mean-abs", 4)


# --- standardised weights and powers of two ---


def test_scaled_standardization_by_hand():
    weight = torch.randn(3, 4, 3, 3, dtype=torch.float64) * 2 + 5
    got = q.scaled_standardization(weight).numpy()
    for channel, values in zip(got, weight.numpy(), strict=True):
        expected = (values - values.mean()) / (values.std() + 1e-5) / np.sqrt(36)
        np.testing.assert_allclose(channel, expected, rtol=1e-12)
    assert (q.scaled_standardization(torch.ones(2, 3, 1, 1)) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_power_of_two(dtype):
    root = math.sqrt(2)
    x = [0.0, -0.0, 1.0, -3.0, 1.01 * root, 0.99 * root, -0.3, 1e-30, 5e10]
    x = torch.tensor(x, dtype=dtype, requires_grad=True)
    y = q.nearest_power_of_two(x)
    tiny = torch.finfo(dtype).tiny
    assert y.tolist() == [tiny, tiny, 1.0, -4.0, 2.0, 1.0, -0.25, 2.0**-100, 2.0**36]
    y.backward(torch.full_like(y, 3.0))
    expected = [0.0, 0.0, *(3 * y / x)[2:].tolist()]
    torch.testing.assert_close(x.grad, torch.tensor(expected, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_powers_of_two_are_exact(dtype):
    """The slopes and scales of A&B BNN are exponentials of whole numbers."""
    exponents = range(-140, 128)
    exact = torch.tensor([2.0**e for e in exponents], dtype=dtype)
    assert torch.equal(torch.exp2(torch.tensor(exponents, dtype=dtype)), exact)


def test_scaled_std_sign_values_and_gradients():
    quantizer = q.ScaledStdSign(4).double()
    weight = torch.rand(4, 3, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        quantizer.gain.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]).view(4, 1, 1, 1))
        weight[0, 0, 0, 0] = 90.0
    weight.requires_grad_()
    signs, scale = quantizer(weight)
    latent = q.scaled_standardization(weight)
    magnitude = latent.detach().abs().mean((1, 2, 3))
    gain = quantizer.gain.detach()
    assert torch.equal(
        signs, torch.where(weight >= weight.mean((1, 2, 3), keepdim=True), 1.0, -1.0)
    )
    torch.testing.assert_close(scale, magnitude * gain.flatten())
    upstream = torch.randn_like(weight)
    (signs * scale.view(4, 1, 1, 1)).backward(upstream)
    # Straight through from magnitude * signs to the standardised weight, the gain its factor.
    (expected,) = torch.autograd.grad(latent, weight, upstream * gain)
    torch.testing.assert_close(weight.grad, expected)
    product = (upstream * signs).sum((1, 2, 3)) * magnitude
    torch.testing.assert_close(quantizer.gain.grad.flatten(), product)


def test_standardised_weights_never_leave_the_window():
    """Why no gradient has to be cut off at |v| = 1: the largest outlier stays inside."""
    for fan_in in (2, 3, 9, 1000):
        weight = torch.zeros(1, fan_in, 1, 1, dtype=torch.float64)
        weight[0, 0] = 1e6
        largest = q.scaled_standardization(weight).abs().max().item()
        assert largest == pytest.approx(math.sqrt((fan_in - 1) / fan_in))


def test_scaled_std_sign_with_powers_of_two():
    quantizer = q.ScaledStdSign(3, scale="power_of_two").double()
    weight = torch.rand(3, 8, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        quantizer.gain.copy_(torch.tensor([1.0, -2.5, 0.7]).view(3, 1, 1, 1))
    signs, scale = quantizer(weight)
    plain = q.ScaledStdSign(3).double()
    plain.load_state_dict(quantizer.state_dict())
    real = plain(weight)[1]
    mantissa, _ = torch.frexp(scale)
    assert (mantissa.abs() == 0.5).all()
    assert ((scale / real).log2().abs() <= 0.5).all()
    assert scale[1] < 0
    upstream = torch.randn_like(weight)
    (signs * scale.view(3, 1, 1, 1)).backward(upstream)
    product = (upstream * signs).sum((1, 2, 3)) * scale / quantizer.gain.flatten()
    torch.testing.assert_close(quantizer.gain.grad.flatten(), product.detach())


def test_scaled_std_sign_of_equal_weights_is_finite():
    quantizer = q.ScaledStdSign(1, scale="power_of_two")
    weight = torch.full((1, 4, 1, 1), 0.5, requires_grad=True)
    signs, scale = quantizer(weight)
    (signs * scale).sum().backward()
    assert signs.unique().tolist() == [1.0]
    assert torch.isfinite(weight.grad).all()
    assert torch.isfinite(quantizer.gain.grad).all()


def test_scaled_std_sign_refuses():
    with pytest.raises(ValueError, match=r"unknown scale 'power-of-two' .*'power_of_two'"):
        q.ScaledStdSign(2, scale="power-of-two")


# --- several bits ---


def test_round_is_half_even_with_identity_gradient():
    x = torch.tensor([-2.5, -1.5, -0.5, -0.0, 0.0, 0.5, 1.5, 2.5, 0.49999997], requires_grad=True)
    y = q.round_half_even(x)
    assert y.tolist() == [-2, -2, 0, 0, 0, 0, 2, 2, 0]
    y.backward(torch.arange(9.0))
    assert torch.equal(x.grad, torch.arange(9.0))
    torch.library.opcheck(torch.ops.signbit.round_half_even.default, (x,))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("scale", [0.25, 0.1])
def test_kbit_values_and_gradient(bits, signed, scale):
    if signed and bits == 1:
        with pytest.raises(ValueError, match="signed bits"):
            q.kbit_quantize(torch.zeros(1), bits, scale, signed)
        return
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    zero_point = low + 1
    edges = [(low - zero_point) * scale, (high - zero_point) * scale]
    halves = [(k + 0.5) * scale for k in range(-6, 6)]
    points = [0.0, -0.0, *halves]
    for edge in edges:
        points += _around(edge + 0.5 * scale, torch.float64)
        points += _around(edge - 0.5 * scale, torch.float64)
    x = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    y = q.kbit_quantize(x, bits, scale, signed, zero_point)
    y.backward(torch.arange(1.0, x.numel() + 1, dtype=torch.float64))
    rounded = np.round(x.detach().numpy() / scale) + zero_point
    integers = np.clip(rounded, low, high)
    np.testing.assert_array_equal(y.detach().numpy(), (integers - zero_point) * scale)
    expected = np.arange(1.0, x.numel() + 1) * (rounded == integers)
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-12)


def test_kbit_gradient_of_the_scale():
    x = torch.tensor([0.3, -0.9, 50.0, -50.0, 0.0], dtype=torch.float64)
    scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    upstream = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    q.kbit_quantize(x, 4, scale).backward(upstream)
    per_item = [round(0.6) - 0.6, round(-1.8) + 1.8, 7, -8, 0]
    expected = sum(g * v for g, v in zip(upstream.tolist(), per_item, strict=True))
    assert scale.grad.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("bits", "signed", "zero_point", "match"),
    [(0, False, 0, "unsigned bits"), (17, True, 0, "signed bits"), (2.0, True, 0, "signed bits"),
     (4, True, 8, "zero_point"), (4, False, -1, "zero_point")],
)  # fmt: skip
def test_kbit_refuses(bits, signed, zero_point, match):
    with pytest.raises(ValueError, match=match):
        q.kbit_quantize(torch.zeros(1), bits, 1.0, signed, zero_point)


def test_kbit_quantizer_module():
    quantizer = q.KBitQuantizer(4, init_scale=0.25)
    x = torch.tensor([0.1, 0.125, 0.375, 3.0, -3.0])
    assert quantizer(x).tolist() == [0.0, 0.0, 0.5, 1.75, -2.0]
    quantizer(x).sum().backward()
    assert quantizer.log2_scale.grad.abs() > 0
    quantizer.init_from(torch.tensor([1.0, -1.0]))
    assert quantizer.scale == pytest.approx(2 / math.sqrt(7))
    quantizer.init_from(torch.zeros(3))
    assert quantizer.scale == pytest.approx(2 / math.sqrt(7))
    with pytest.raises(ValueError, match="init_scale"):
        q.KBitQuantizer(4, init_scale=0.0)


def test_ternary_values_scale_and_gradient():
    # mean |w| = 1 in the first channel, so its threshold is exactly the default 0.7.
    weight = torch.tensor(
        [[0.7, -0.7, 2.0, -0.6], [0.0, -0.0, 0.0, 0.0], [0.5, -0.5, 0.5, 1.5]], dtype=torch.float64
    ).requires_grad_()
    ternary, scale = q.TernaryQuantizer()(weight)
    assert ternary.tolist() == [[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert scale.tolist() == [2.0, 0.0, 1.5]
    upstream = torch.arange(1.0, 13.0, dtype=torch.float64).view(3, 4)
    ternary.backward(upstream)
    assert torch.equal(weight.grad, upstream * (weight.detach().abs() <= 1.0))
    with pytest.raises(ValueError, match="threshold"):
        q.TernaryQuantizer(threshold=-0.1)


def test_ternary_keeps_only_weights_above_the_threshold():
    weight = torch.randn(5, 4, 3, 3)
    ternary, scale = q.TernaryQuantizer(threshold=0.5)(weight)
    for channel in range(5):
        w = weight[channel].numpy()
        kept = np.abs(w) > 0.5 * np.abs(w).mean()
        np.testing.assert_array_equal(ternary[channel].numpy(), np.sign(w) * kept)
        assert scale[channel].item() == pytest.approx(np.abs(w[kept]).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("granularity", "shape"),
    [("element", (4, 3, 2, 2)), ("kernel", (4, 3, 1, 1)), ("filter", (4, 1, 1, 1))],
)
def test_over_parameterized_sign(granularity, shape):
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 2, 2, requires_grad=True)
    quantizer = q.OverParameterizedSign((4, 3, 2, 2), granularity)
    assert quantizer.factor.shape == shape
    torch.nn.init.normal_(quantizer.factor)
    quantizer.init_from(weight)
    u = (quantizer.factor * weight).detach()
    signs, scale = quantizer(weight)
    assert torch.equal(signs, torch.where(u >= 0, 1.0, -1.0))
    assert torch.allclose(scale, u.abs().mean((1, 2, 3)))
    grad = torch.randn(4, 3, 2, 2)
    (signs * scale.view(-1, 1, 1, 1) * grad).sum().backward()
    behind = grad * scale.detach().view(-1, 1, 1, 1) * (u.abs() <= 1)  # straight through the sign
    assert torch.allclose(weight.grad, behind * quantizer.factor)
    wanted = (behind * weight.detach()).sum_to_size(shape)
    assert torch.allclose(quantizer.factor.grad, wanted)
    products = (signs.detach() * grad).sum((1, 2, 3))
    assert torch.allclose(quantizer.magnitude.grad, products)
    assert torch.allclose(quantizer.gain.grad, (products * quantizer.magnitude.detach()).sum())


def test_over_parameterized_sign_refuses():
    with pytest.raises(ValueError, match=r"unknown granularity 'elements' .*'element'"):
        q.OverParameterizedSign((4, 3, 2, 2), "elements")
    with pytest.raises(ValueError, match=r"made for a weight of shape \(4, 3\), not \(3, 4\)"):
        q.OverParameterizedSign((4, 3))(torch.zeros(3, 4))
