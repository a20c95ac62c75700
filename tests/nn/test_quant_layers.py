"""8- and 4-bit layers against an integer model in NumPy; their ranges, gradients and state."""

import copy
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from signbit.nn import QuantConv2d, QuantLinear

f32 = np.float32


LIMITS = {8: (255, 127), 4: (15, 7)}  # the greatest input and weight


def integer_weight(weight: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """The rule of the integer weights, in NumPy's float32."""
    ws = np.abs(weight).reshape(len(weight), -1).max(1) / f32(limit)
    ws = np.where(ws == 0, f32(1), ws)
    wq = np.rint(weight / ws.reshape(-1, *[1] * (weight.ndim - 1)))
    return np.clip(wq, -limit, limit).astype(np.int64), ws


def integer_input(x: np.ndarray, layer) -> np.ndarray:
    """The stored integer of every input, in int64."""
    zero_point = layer.input_zero_point.item()
    q = np.rint(x * layer.inv_input_scale.numpy()) + zero_point
    return np.clip(q, 0, LIMITS[layer.bits][0]).astype(np.int64)


def integer_conv2d(q, wq, layer) -> np.ndarray:
    """Convolve stored integers, padded with the zero point, by the definition."""
    zero_point = layer.input_zero_point.item()
    (py, px), (sy, sx), (dy, dx) = layer.padding, layer.stride, layer.dilation
    q = np.pad(q, ((0, 0), (0, 0), (py, py), (px, px)), constant_values=zero_point)
    outputs, _, kh, kw = wq.shape
    height = (q.shape[2] - dy * (kh - 1) - 1) // sy + 1
    width = (q.shape[3] - dx * (kw - 1) - 1) // sx + 1
    y = np.zeros((q.shape[0], outputs, height, width), dtype=np.int64)
    w = wq.reshape(layer.groups, outputs // layer.groups, -1)
    for i in range(height):
        for j in range(width):
            patch = q[
                :,
                :,
                i * sy : i * sy + dy * (kh - 1) + 1 : dy,
                j * sx : j * sx + dx * (kw - 1) + 1 : dx,
            ]
            patch = patch.reshape(q.shape[0], layer.groups, -1, 1) - zero_point
            y[:, :, i, j] = (w @ patch).reshape(q.shape[0], outputs)
    return y


def expected_conv(layer, x: torch.Tensor) -> np.ndarray:
    wq, ws = integer_weight(layer.weight.detach().numpy(), LIMITS[layer.bits][1])
    acc = integer_conv2d(integer_input(x.numpy(), layer), wq, layer).astype(f32)
    y = acc * (layer.input_scale.numpy() * ws).reshape(1, -1, 1, 1)
    return y if layer.bias is None else y + layer.bias.detach().numpy().reshape(1, -1, 1, 1)


CONVS = [
    {"kernel_size": 3, "padding": 1, "bias": False},
    {"kernel_size": 7, "stride": 2, "padding": 3},
    {"kernel_size": 1, "groups": 2},
    {"kernel_size": (3, 2), "stride": (1, 2), "padding": (2, 0), "dilation": (2, 1), "groups": 4},
]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("arguments", CONVS)
@pytest.mark.parametrize("limits", [(-1.0, 2.0), (0.0, 6.0), (-3.0, -1.0), (-2.1179, 2.64)])
def test_conv_is_the_integer_model(arguments, limits, bits):
    layer = QuantConv2d(4, 8, **arguments, bits=bits)
    low, high = limits
    with torch.no_grad():
        layer.weight[2] = 0.0
        if layer.bias is not None:
            layer.bias.normal_()
    layer.set_input_range(low, high)
    # A tenth beyond the range on both sides, so that both ends clip.
    x = torch.rand(2, 4, 11, 11) * 1.2 * (high - low) + low - 0.1 * (high - low)
    y = layer.eval()(x).detach().numpy()
    np.testing.assert_array_equal(y, expected_conv(layer, x))
    # Training computes the same function.
    layer.freeze()
    np.testing.assert_array_equal(layer.train()(x).detach().numpy(), y)


@pytest.mark.parametrize(
    ("features", "bits"),
    [(5, 8), (518, 8), (519, 8), (4000, 8), (5, 4), (4000, 4), (159_782, 4), (159_784, 4)],
)
def test_linear_is_the_integer_model(features, bits):
    # 518 and 159,783 are the longest sums that float32 is trusted with; all of them must be exact.
    layer = QuantLinear(features, 7, bits=bits).eval()
    with torch.no_grad():
        layer.weight[0] = 1.0
        layer.bias.normal_()
    layer.set_input_range(0.0, 1.0)
    x = torch.rand(3, 2, features)
    x[0] = 1.0
    levels, limit = LIMITS[bits]
    wq, ws = integer_weight(layer.weight.detach().numpy(), limit)
    acc = (integer_input(x.numpy(), layer) - layer.input_zero_point.item()) @ wq.T
    assert acc.max() == levels * limit * features
    expected = acc.astype(f32) * (layer.input_scale.numpy() * ws) + layer.bias.detach().numpy()
    np.testing.assert_array_equal(layer(x).detach().numpy(), expected)


def test_convolution_with_sums_beyond_float32_is_exact():
    layer = QuantConv2d(512, 2, 3, bias=False).eval()
    layer.set_input_range(-1.0, 1.0)
    x = torch.rand(1, 512, 4, 4)
    np.testing.assert_array_equal(layer(x).detach().numpy(), expected_conv(layer, x))


def test_quantized_weight():
    layer = QuantConv2d(2, 3, 1)
    with torch.no_grad():
        # Second channel: 2.54 / 127 = 0.02, so that 0.03 / 0.02 is next to a tie; third all zero.
        layer.weight.copy_(torch.tensor([[-4.0, 2.0], [2.54, 0.01], [0.0, -0.0]]).view(3, 2, 1, 1))
    wq, ws = layer.quantized_weight()
    assert wq.dtype == torch.int8
    assert wq.flatten().tolist() == [-127, 64, 127, 0, 0, 0]
    assert ws.dtype == torch.float32
    assert ws.tolist() == [f32(4) / f32(127), f32(2.54) / f32(127), 1.0]


def test_every_number_of_four_bits():
    layer = QuantLinear(1, 15, bias=False, bits=4).eval()
    with torch.no_grad():
        layer.weight[:, 0] = torch.arange(-7.0, 8.0)
    assert layer.quantized_weight()[0].flatten().tolist() == [-7] * 7 + [0] + [7] * 7
    one = QuantLinear(15, 1, bias=False, bits=4).eval()
    with torch.no_grad():
        one.weight[0] = torch.arange(-7.0, 8.0)
    assert one.quantized_weight()[0].flatten().tolist() == list(range(-7, 8))
    one.set_input_range(-5.0, 10.0)
    assert (one.input_scale.item(), one.input_zero_point.item()) == (1.0, 5)
    # of each number, what is stored, seen through the weight 7 alone
    x = torch.zeros(19, 15)
    x[:, 14] = torch.arange(-7.0, 12.0)
    stored = [-5, -5, *range(-5, 11), 10]
    assert (one(x) / 7).flatten().tolist() == stored


def test_a_weight_too_small_for_float32_scales_counts_as_zero():
    layer = QuantLinear(2, 1)
    with torch.no_grad():
        layer.weight.fill_(1e-44)
    wq, ws = layer.quantized_weight()
    assert ws.tolist() == [1.0]
    assert wq.tolist() == [[0, 0]]


def test_ties_go_to_the_even_integer():
    layer = QuantLinear(1, 1, bias=False).eval()
    with torch.no_grad():
        layer.weight.fill_(127.0)
    layer.set_input_range(-127.0, 128.0)
    assert layer.input_scale.item() == 1.0
    assert layer.input_zero_point.item() == 127
    x = torch.tensor([-200.0, -127.5, -2.5, -1.5, -0.5, -0.0, 0.5, 1.5, 2.5, 128.5, 300.0])
    assert (layer(x.view(-1, 1)) / 127).flatten().tolist() == [
        -127, -127, -2, -2, 0, 0, 0, 2, 2, 128, 128,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "zero_point", "bits"),
    [
        (-1.0, 3.0, 64, 8),
        (0.5, 2.0, 0, 8),
        (-2.0, -0.5, 255, 8),
        (0.0, 0.0, 0, 8),
        (-1e-40, 1e-40, 0, 8),
        (-1.0, 3.0, 4, 4),
        (0.5, 2.0, 0, 4),
        (-2.0, -0.5, 15, 4),
    ],
)
def test_range_contains_zero_exactly(low, high, zero_point, bits):
    layer = QuantLinear(1, 1, bits=bits)
    layer.set_input_range(low, high)
    assert layer.input_zero_point.item() == zero_point
    levels = f32(LIMITS[bits][0])
    width = f32(max(high, 0)) / levels - f32(min(low, 0)) / levels
    scale = width if width > 1e-30 else f32(1)
    assert layer.input_scale.numpy() == scale
    assert layer.inv_input_scale.numpy() == f32(1) / scale
    zero = layer.eval()(torch.zeros(1, 1))
    assert torch.equal(zero, layer.bias.view(1, 1))


def test_widest_range_does_not_overflow():
    layer = QuantLinear(1, 1)
    layer.set_input_range(-3e38, 3e38)
    assert torch.isfinite(layer.input_scale)


@pytest.mark.parametrize("limits", [(1.0, 0.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_bad_ranges_are_refused(limits):
    layer = QuantLinear(1, 1)
    with pytest.raises(ValueError, match="QuantLinear: input range"):
        layer.set_input_range(*limits)
    assert not layer.calibrated


# --- the range in training ---


def test_before_any_range_evaluation_is_real_valued():
    layer = QuantConv2d(3, 4, 3, padding=1).eval()
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1))
    assert not layer.calibrated
    with pytest.raises(ValueError, match="no input range to freeze"):
        layer.freeze()


def test_range_follows_training_batches_until_frozen():
    layer = QuantLinear(2, 1)
    layer(torch.tensor([[-1.0, 4.0]]))
    assert layer.calibrated
    assert (layer.range_min.item(), layer.range_max.item()) == (-1.0, 4.0)
    layer(torch.tensor([[1.0, 14.0]]))  # a minimum above zero counts as zero
    assert layer.range_min.item() == pytest.approx(-0.9)
    assert layer.range_max.item() == pytest.approx(5.0)
    assert layer.input_scale.item() == pytest.approx(5.9 / 255)
    layer.freeze()
    layer(torch.tensor([[-100.0, 100.0]]))
    assert layer.range_max.item() == pytest.approx(5.0)
    layer.unfreeze()
    layer.eval()(torch.tensor([[-100.0, 100.0]]))
    assert layer.range_max.item() == pytest.approx(5.0)
    layer.train()(torch.tensor([[-100.0, 105.0]]))
    assert layer.range_max.item() == pytest.approx(15.0)


def test_inputs_that_are_not_finite_are_refused_in_training():
    layer = QuantLinear(2, 1)
    with pytest.raises(ValueError, match="no finite interval"):
        layer(torch.tensor([[0.0, float("nan")]]))


def test_gradients_pass_straight_through_and_stop_at_the_clip():
    layer = QuantLinear(6, 3).double()
    layer.set_input_range(-127.0, 128.0)
    layer.freeze()
    row = [-127.5, -127.51, 128.5, 128.51, 0.0, 3.3]
    x = torch.tensor([row], dtype=torch.float64, requires_grad=True)
    upstream = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    layer(x).backward(upstream)
    wq, ws = layer.quantized_weight()
    effective = wq.double() * ws.double().view(3, 1)
    # Halves go to even: -127.5 to -128, clipped; 128.5 to 128, kept.
    passes = torch.tensor([[0, 0, 1, 0, 1, 1]], dtype=torch.float64)
    # Scales are float32, and the three terms of a gradient may cancel.
    torch.testing.assert_close(x.grad, upstream @ effective * passes, rtol=1e-6, atol=1e-7)
    quantised = torch.tensor([[-127.0, -127, 128, 128, 0, 3]], dtype=torch.float64)
    torch.testing.assert_close(layer.weight.grad, upstream.T @ quantised, rtol=1e-6, atol=1e-9)
    assert torch.equal(layer.bias.grad, upstream[0])


def test_gradients_of_four_bits_stop_at_their_clip():
    layer = QuantLinear(6, 1, bits=4).double()
    layer.set_input_range(-7.0, 8.0)
    layer.freeze()
    # Halves go to even: -7.5 to -8, clipped; 8.5 to 8, kept.
    row = [-7.5, -7.49, 8.5, 8.51, 0.0, 3.3]
    x = torch.tensor([row], dtype=torch.float64, requires_grad=True)
    layer(x).sum().backward()
    wq, ws = layer.quantized_weight()
    passes = torch.tensor([[0, 1, 1, 0, 1, 1]], dtype=torch.float64)
    torch.testing.assert_close(x.grad, wq * ws.double() * passes, rtol=1e-6, atol=1e-9)
    quantised = torch.tensor([[-7.0, -7, 8, 8, 0, 3]], dtype=torch.float64)
    torch.testing.assert_close(layer.weight.grad, quantised, rtol=1e-6, atol=1e-9)


# --- state ---


def test_state_dict_keeps_calibration_and_freeze():
    layer = QuantConv2d(3, 4, 3)
    layer.set_input_range(-1.0, 3.0)
    layer.freeze()
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = QuantConv2d(3, 4, 3)
    other.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(1, 3, 6, 6)
    assert torch.equal(other.eval()(x), layer.eval()(x))
    assert not torch.equal(layer(x), F.conv2d(x, layer.weight, layer.bias))
    other.train()(x * 100)
    assert other.range_max.item() == 3.0


def test_averaged_copies_that_copy_buffers_only_stay_calibrated():
    # As torch.optim.swa_utils does with use_buffers: no load_state_dict is called.
    layer = QuantLinear(4, 2)
    copied = copy.deepcopy(layer).eval()
    layer.set_input_range(0.0, 1.0)
    for mine, theirs in zip(copied.buffers(), layer.buffers(), strict=True):
        mine.copy_(theirs)
    x = torch.rand(3, 4)
    assert torch.equal(copied(x), layer.eval()(x))


def test_float64_model_has_the_same_integers():
    layer = QuantConv2d(3, 4, 3, padding=1).eval()
    layer.set_input_range(-1.0, 3.0)
    double = copy.deepcopy(layer).double()
    assert torch.equal(double.quantized_weight()[0], layer.quantized_weight()[0])
    assert torch.equal(double.quantized_weight()[1], layer.quantized_weight()[1])
    x = torch.randn(1, 3, 5, 5)
    torch.testing.assert_close(double(x.double()).float(), layer(x))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("limits", [(-1.0, 3.0), (0.0, 0.0), (0.0, 15.0), (-3e38, 3e38)])
def test_a_state_of_other_bits_brings_its_range(bits, limits):
    saved, other = QuantLinear(4, 2, bits=12 - bits), QuantLinear(4, 2, bits=bits)
    saved.set_input_range(*limits)
    other.load_state_dict(saved.state_dict())
    fresh = QuantLinear(4, 2, bits=bits)
    fresh.set_input_range(*limits)
    for name in ("range_min", "range_max", "input_scale", "inv_input_scale", "input_zero_point"):
        assert torch.equal(getattr(other, name), getattr(fresh, name)), name
    # of its own bits every number stays, whatever the range says
    fresh.input_scale.fill_(0.7)
    other.load_state_dict(fresh.state_dict())
    assert other.input_scale == f32(0.7)


@pytest.mark.parametrize("bits", [0, 2, 16, True, "8", 8.0, None])
def test_other_bits_are_refused(bits):
    with pytest.raises(ValueError, match=r"QuantConv2d: bits must be 4 or 8, got"):
        QuantConv2d(4, 4, 3, bits=bits)
    with pytest.raises(ValueError, match=r"QuantLinear: bits must be 4 or 8, got"):
        QuantLinear(4, 4, bits=bits)


def test_bits_are_printed():
    assert str(QuantLinear(3, 2, bits=4)) == "QuantLinear(3, 2, bias=True, bits=4)"
    assert str(QuantConv2d(3, 2, 1)).endswith("bias=True, bits=8)")


@pytest.mark.parametrize("layer", [QuantConv2d(4, 4, 3), QuantLinear(4, 4)])
def test_bias_starts_at_zero_and_can_be_left_out(layer):
    assert layer.bias.tolist() == [0.0] * 4
    with pytest.raises(ValueError, match="Quant"):
        type(layer)(0, 4, *([3] if isinstance(layer, QuantConv2d) else []))
