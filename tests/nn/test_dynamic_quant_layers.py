"""Layers with dynamic ranges against loops in NumPy; gradients; what the compiler says of them."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import signbit
from signbit.compiler.capture import capture_leniently
from signbit.hardware import count
from signbit.nn import DynamicQuantConv2d, DynamicQuantLinear
from signbit.quantizers import minmax_quantize


def rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """One range over all values, number by number."""
    low, high, n = float(values.min()), float(values.max()), 2**bits - 1
    found = np.empty(values.shape)
    for at, x in np.ndenumerate(values):
        q = round((float(x) - low) / (high - low + 1e-8) * n)  # Python's rounds half to even
        assert 0 <= q <= n
        found[at] = q * (high - low + 1e-8) / n + low
    return found


@pytest.mark.parametrize("bits", [4, 8])
def test_values_and_gradient_of_the_quantizer(bits: int):
    x = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    y = minmax_quantize(x, bits, (1, 2))
    for mine, values in zip(y.detach().numpy(), x.detach().numpy(), strict=True):
        np.testing.assert_allclose(mine, rounded(values, bits), rtol=1e-12, atol=1e-14)
        assert len(np.unique(mine)) <= 2**bits
        assert mine.min() == values.min()
    upstream = torch.randn_like(y)
    y.backward(upstream)
    torch.testing.assert_close(x.grad, upstream, rtol=1e-12, atol=0)


def test_ties_and_what_has_no_range():
    x = torch.tensor([0.0, 0.5, 1.5, 2.5, 15.0], dtype=torch.float64)
    # the 1e-8 makes steps a little wider, so that halves fall just below
    assert torch.round(minmax_quantize(x, 4, (0,)), decimals=6).tolist() == [0, 0, 1, 2, 15]
    constant = torch.full((4,), 0.37, requires_grad=True)
    y = minmax_quantize(constant, 8, (0,))
    assert torch.equal(y, constant)
    y.sum().backward()
    torch.testing.assert_close(constant.grad, torch.ones(4))
    with pytest.raises(ValueError, match="bits must be an integer"):
        minmax_quantize(x, 0, (0,))


CONVS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "groups": 2, "bias": False},
    {"kernel_size": (1, 2), "dilation": (1, 2)},
    {"kernel_size": 1},
    {"kernel_size": 1, "stride": 2, "groups": 4},
]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("size", [(6, 5), (1, 1), (1, 3)])
@pytest.mark.parametrize("arguments", CONVS)
def test_convolution(arguments: dict, size: tuple[int, int], bits: int):
    layer = DynamicQuantConv2d(4, 8, **arguments, bits=bits).double()
    kernel = layer.kernel_size
    if size != (6, 5) and kernel != (1, 1):
        layer.padding = (1, 3)
    x = torch.randn(3, 4, *size, dtype=torch.float64)
    numbers, weight = x.numpy().copy(), layer.weight.detach().numpy().copy()
    for image in numbers:
        if size == (1, 1):
            image[:] = rounded(image, bits)
        else:
            for plane in image:
                plane[:] = rounded(plane, bits)
    for filters in weight:
        if kernel == (1, 1):
            filters[:] = rounded(filters, bits)
        else:
            for each in filters:
                each[:] = rounded(each, bits)
    np.testing.assert_allclose(layer.effective_weight().detach(), weight, rtol=1e-9, atol=1e-12)
    geometry = layer.stride, layer.padding, layer.dilation, layer.groups
    expected = F.conv2d(torch.from_numpy(numbers), torch.from_numpy(weight), layer.bias, *geometry)
    torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)
    layer.quantize_input = False
    expected = F.conv2d(x, torch.from_numpy(weight), layer.bias, *geometry)
    torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_linear(shape: tuple[int, ...], bits: int):
    layer = DynamicQuantLinear(7, 5, bits=bits).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(*shape, 7, dtype=torch.float64)
    rows = np.stack([rounded(row, bits) for row in x.reshape(-1, 7).numpy()])
    weight = np.stack([rounded(row, bits) for row in layer.weight.detach().numpy()])
    expected = (rows @ weight.T + layer.bias.detach().numpy()).reshape(*shape, 5)
    np.testing.assert_allclose(layer(x).detach(), expected, rtol=1e-9, atol=1e-9)


def test_ranges_are_those_of_each_image():
    """What else is in a batch changes nothing."""
    layers = [DynamicQuantConv2d(3, 4, 3, bits=4), DynamicQuantLinear(6, 2, bits=4)]
    for layer, shape in zip(layers, [(3, 8, 8), (6,)], strict=True):
        layer.double()  # PyTorch sums a batch in another order
        x = torch.randn(4, *shape) * torch.tensor([1.0, 30.0, 0.1, 5.0]).view(4, *[1] * len(shape))
        x = x.double()
        alone = torch.cat([layer(image[None]) for image in x])
        torch.testing.assert_close(layer(x), alone)


@pytest.mark.parametrize(
    ("layer", "beyond"),
    [(DynamicQuantConv2d(2, 3, 1), 1000.0), (DynamicQuantLinear(2, 3), 25.0)],
)
def test_gradients_pass_straight_through_within_the_limit(layer, beyond: float):
    layer = copy.deepcopy(layer).double()
    shape = (4, 2, 1, 1) if isinstance(layer, DynamicQuantConv2d) else (4, 2)
    row = [0.3, -0.7, beyond, -beyond, 1.01 * beyond, 0.4, -1.01 * beyond, 7.0]
    x = torch.tensor(row, dtype=torch.float64).view(shape).requires_grad_()
    y = layer(x)
    upstream = torch.randn_like(y)
    y.backward(upstream)
    weight = layer.effective_weight().detach().flatten(1)
    passes = torch.tensor([1, 1, 1, 1, 0, 1, 0, 1], dtype=torch.float64).view(4, 2)
    torch.testing.assert_close(
        x.grad.flatten(1), upstream.flatten(1) @ weight * passes, rtol=1e-9, atol=1e-12
    )
    clipped = x.detach().clamp(-beyond, beyond).flatten(1)
    seen = minmax_quantize(clipped, 8, (1,))
    torch.testing.assert_close(
        layer.weight.grad.flatten(1), upstream.flatten(1).T @ seen, rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(layer.bias.grad, upstream.flatten(1).sum(0))


def test_half_precision_is_rounded_in_float32():
    layer = DynamicQuantConv2d(3, 4, 3)
    x = torch.randn(2, 3, 6, 6)
    expected = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    halves = copy.deepcopy(layer).bfloat16()
    assert halves(x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("bits", [2, 32, True, "4"])
def test_what_is_refused(bits):
    with pytest.raises(ValueError, match="DynamicQuantConv2d: bits must be 4 or 8, got"):
        DynamicQuantConv2d(4, 4, 3, bits=bits)
    with pytest.raises(ValueError, match="DynamicQuantLinear: bits must be 4 or 8, got"):
        DynamicQuantLinear(4, 4, bits=bits)
    with pytest.raises(ValueError, match="groups=3"):
        DynamicQuantConv2d(4, 4, 3, groups=3)
    with pytest.raises(ValueError, match="DynamicQuantLinear: in_features"):
        DynamicQuantLinear(0, 4)


def test_state_and_text():
    conv, linear = DynamicQuantConv2d(3, 4, 3, bits=4), DynamicQuantLinear(3, 2, bias=False)
    assert list(conv.state_dict()) == ["weight", "bias"]
    assert list(linear.state_dict()) == ["weight"]
    assert "bits=4, quantize_input=True" in str(conv)
    assert "bias=False, bits=8" in str(linear)


def test_the_compiler_refuses_them_and_says_what_to_use():
    model = torch.nn.Sequential(
        DynamicQuantConv2d(3, 4, 3, bits=4, quantize_input=False),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        DynamicQuantLinear(4, 2),
    )
    x = torch.randn(1, 3, 6, 6)
    for arithmetic in ("float", "integer"):
        with pytest.raises(signbit.CompileError) as error:
            signbit.compile(model, x, arithmetic=arithmetic)
        message = str(error.value)
        why = "dynamic ranges are for parity only: use signbit.nn."
        assert f"0 (DynamicQuantConv2d): {why}QuantConv2d (BNext: ranges='static')" in message
        assert f"3 (DynamicQuantLinear): {why}QuantLinear (BNext: ranges='static')" in message
    found = count(capture_leniently(model, x).graph)
    assert found.macs == {1: 0, 4: 108 * 16, 8: 8, 32: 0}
    assert found.params == {1: 0, 4: 108, 8: 8, 32: 6}
    assert [row.runs for row in signbit.summary(model, x).rows][::3] == ["refused", "refused"]
