"""Sign, RSign, RPReLU and Int4Add against their formulas."""

import math

import numpy as np
import pytest
import torch

from signbit.nn import Int4Add, RPReLU, RSign, Sign
from signbit.quantizers import ApproxSign, ClippedIdentity

SHAPES = [(5, 3), (2, 3, 7), (2, 3, 4, 5)]


def over_channels(parameter: torch.Tensor, dim: int) -> torch.Tensor:
    return parameter.view(1, -1, *([1] * (dim - 2)))


def sum_per_channel(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(0, 1).flatten(1).sum(1)


def test_sign_uses_its_surrogate():
    x = torch.tensor([-0.5, -0.0, 0.25, 1.5], requires_grad=True)
    y = Sign("approx_sign")(x)
    assert y.tolist() == [-1, 1, 1, 1]
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 2.0, 1.5, 0.0]
    assert isinstance(Sign().surrogate, ClippedIdentity)
    assert Sign().surrogate.window == 1.0
    with pytest.raises(ValueError, match="approx_sign"):
        Sign("approxsign")


@pytest.mark.parametrize("shape", SHAPES)
def test_rsign_formula_and_gradients(shape):
    layer = RSign(3, ApproxSign()).double()
    assert layer.bias.tolist() == [0, 0, 0]
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([0.5, -0.25, 0.0]))
    x = torch.randn(shape, dtype=torch.float64)
    x[0, 0], x[0, 1], x[0, 2] = -0.5, 0.25, -0.0  # exactly on the threshold
    x.requires_grad_()
    y = layer(x)
    z = x.detach() + over_channels(layer.bias.detach(), x.dim())
    assert torch.equal(y, torch.where(z >= 0, 1.0, -1.0).double())
    assert (y[0] == 1).all()
    upstream = torch.randn_like(y)
    y.backward(upstream)
    expected = upstream * (2 - 2 * z.abs()).clamp_min(0)
    torch.testing.assert_close(x.grad, expected)
    torch.testing.assert_close(layer.bias.grad, sum_per_channel(expected))


@pytest.mark.parametrize("shape", SHAPES)
def test_rprelu_formula_and_gradients(shape):
    layer = RPReLU(3).double()
    assert layer.slope.tolist() == [0.25] * 3
    assert RPReLU(2, init=-0.5).slope.tolist() == [-0.5] * 2
    with torch.no_grad():
        layer.shift_in.copy_(torch.tensor([0.5, -0.25, 0.0]))
        layer.slope.copy_(torch.tensor([0.1, -2.0, 0.0]))
        layer.shift_out.copy_(torch.tensor([-1.0, 0.0, 3.0]))
    x = torch.randn(shape, dtype=torch.float64)
    x[0, 0], x[0, 1], x[0, 2] = -0.5, 0.25, -0.0  # exactly at the kink
    x.requires_grad_()
    y = layer(x)
    shift_in, slope, shift_out = (
        over_channels(p.detach(), x.dim()) for p in (layer.shift_in, layer.slope, layer.shift_out)
    )
    u = x.detach() + shift_in
    torch.testing.assert_close(y, torch.where(u >= 0, u, slope * u) + shift_out, rtol=0, atol=0)
    upstream = torch.randn_like(y)
    y.backward(upstream)
    expected = upstream * torch.where(u > 0, 1.0, slope)
    torch.testing.assert_close(x.grad, expected)
    torch.testing.assert_close(layer.shift_in.grad, sum_per_channel(expected))
    torch.testing.assert_close(layer.slope.grad, sum_per_channel(upstream * u * (u < 0)))
    torch.testing.assert_close(layer.shift_out.grad, sum_per_channel(upstream))


@pytest.mark.parametrize("layer", [RSign(3), RPReLU(3)], ids=["rsign", "rprelu"])
def test_wrong_channels_are_refused(layer):
    for shape in [(2, 4, 5), (3,)]:
        with pytest.raises(ValueError, match=rf"{type(layer).__name__} expects \[N, 3, ...\]"):
            layer(torch.zeros(shape))
    with pytest.raises(ValueError, match="channels"):
        type(layer)(0)


# --- Int4Add ---


def int4(values: np.ndarray, scale: float) -> np.ndarray:
    """``np.rint`` rounds half to even."""
    return np.clip(np.rint(values / scale), -8, 7)


EDGES = [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 6.5, 7.0, 7.49, 7.5, 8.0, 100.0]
EDGES += [-7.5, -8.0, -8.49, -8.5, -8.51, -9.0, -100.0]


@pytest.mark.parametrize("log2_scale", [-1.0, -1.4, -0.6, -2.0, 0.0, 3.0, -7.0])
def test_int4_add_values(log2_scale):
    layer = Int4Add(log2_scale)
    scale = 2.0 ** round(log2_scale)
    assert layer.scale == scale
    a, b = (v.flatten() for v in np.meshgrid(EDGES, EDGES))
    out = layer(torch.tensor(a * scale).float(), torch.tensor(b * scale).float())
    expected = (int4(a, 1.0) + int4(b, 1.0)) * scale
    # 7.49 and the like are not on the grid of float32, but far enough from the ties.
    np.testing.assert_array_equal(out.detach().numpy(), expected.astype(np.float32))


def test_int4_add_reaches_all_of_its_five_bits():
    layer = Int4Add(0.0)
    integers = torch.arange(-8.0, 8.0)
    sums = layer(integers.repeat(16), integers.repeat_interleave(16))
    assert sorted(sums.unique().tolist()) == list(range(-16, 15))


def test_int4_add_scale_is_a_power_of_two_for_every_exponent():
    one = torch.ones(1)
    for exponent in range(-20, 21):
        layer = Int4Add(exponent)
        value = one * 2.0**exponent
        assert layer(value, torch.zeros(1)).item() == 2.0**exponent


def test_int4_add_gradients():
    layer = Int4Add(-1.0).double()
    values = np.array(EDGES)
    a = torch.tensor(values * 0.5, requires_grad=True)
    b = torch.tensor(values[::-1].copy() * 0.5, requires_grad=True)
    upstream = torch.linspace(-1, 2, len(EDGES), dtype=torch.float64)
    layer(a, b).backward(upstream)
    g = upstream.numpy()
    total = np.zeros(len(EDGES))
    for operand in (a, b):
        y = operand.detach().numpy() / 0.5
        unclipped = np.rint(y) == int4(y, 1.0)
        np.testing.assert_allclose(operand.grad.numpy(), g * unclipped, rtol=1e-12)
        total += int4(y, 1.0) - y * unclipped
    expected = (g * total).sum() * math.log(2) * 0.5 / math.sqrt(7 * len(EDGES))
    assert layer.log2_scale.grad.item() == pytest.approx(expected, rel=1e-9)


def test_int4_add_refuses():
    with pytest.raises(ValueError, match="shapes differ"):
        Int4Add()(torch.zeros(2, 3), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="finite"):
        Int4Add(math.inf)
