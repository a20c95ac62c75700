"""The mask layer, NormalizedSign, QRPReLU and RLeakyReLU against their formulas."""

import math

import pytest
import torch

from signbit.nn import MaskLayer, NormalizedSign, QRPReLU, RLeakyReLU, RPReLU, RSign, Sign

SHAPES = [(5, 3), (2, 3, 7), (2, 3, 4, 5)]


def over_channels(parameter: torch.Tensor, dim: int) -> torch.Tensor:
    return parameter.view(1, -1, *([1] * (dim - 2)))


def per_channel(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(0, 1).flatten(1).sum(1)


# --- the mask layer ---


@pytest.mark.parametrize("k", [3.0, 1.0, 0.5, 20.0])
def test_mask_layer_is_the_antiderivative_of_the_surrogate(k):
    x = torch.linspace(-4, 4, 201, dtype=torch.float64, requires_grad=True)
    y = MaskLayer(k)(x)
    torch.testing.assert_close(y, 2 * torch.sigmoid(k * x) - 1, rtol=0, atol=1e-15)
    y.sum().backward()
    s = torch.sigmoid(k * x.detach())
    torch.testing.assert_close(x.grad, 2 * k * s * (1 - s), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_plain_sign_behind_the_mask_layer_is_the_sign_with_the_surrogate(dtype):
    edges = [0.0, -0.0, 1e-30, -1e-30, 1e-42, -1e-42, 50.0, -50.0, math.inf, -math.inf]
    points = torch.cat([torch.tensor(edges, dtype=dtype), torch.randn(500, dtype=dtype) * 2])
    masked, direct = points.clone().requires_grad_(), points.clone().requires_grad_()
    upstream = torch.randn_like(points)
    y = Sign("identity")(MaskLayer()(masked))
    expected = Sign("sigmoid")(direct)
    assert torch.equal(y, expected)
    y.backward(upstream)
    expected.backward(upstream)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(masked.grad, direct.grad, rtol=0, atol=tolerance)


@pytest.mark.parametrize("factor", [1e-3, 0.7, 1.0, 40.0])
def test_no_positive_factor_is_seen_behind_the_mask_layer(factor):
    x = torch.randn(1000)
    assert torch.equal(Sign("identity")(MaskLayer()(factor * x)), Sign()(x))


def test_mask_layer_refuses():
    for k in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="k must be a positive number"):
            MaskLayer(k)
    assert repr(MaskLayer()) == "MaskLayer(k=3)"


# --- NormalizedSign ---


@pytest.mark.parametrize("shape", SHAPES)
def test_normalized_sign_formula_and_gradients(shape):
    beta = 0.75
    layer = NormalizedSign(3, beta).double()
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([0.375, -0.75, 0.0]))
    x = torch.randn(shape, dtype=torch.float64)
    x[0, 0], x[0, 1], x[0, 2] = -0.5, 1.0, -0.0  # exactly on the threshold -bias / beta
    x.requires_grad_()
    y = layer(x)
    z = beta * x.detach() + over_channels(layer.bias.detach(), x.dim())
    assert torch.equal(y, torch.where(z >= 0, 1.0, -1.0).double())
    assert (y[0] == 1).all()
    upstream = torch.randn_like(y)
    y.backward(upstream)
    s = torch.sigmoid(3 * z)
    expected = upstream * 6 * s * (1 - s)
    torch.testing.assert_close(x.grad, beta * expected)
    torch.testing.assert_close(layer.bias.grad, per_channel(expected))


@pytest.mark.parametrize("beta", [1.0, 0.9, 0.05, 3.0])
def test_beta_is_not_seen_in_the_forward_pass(beta):
    layer, plain = NormalizedSign(3, beta), RSign(3)
    with torch.no_grad():
        layer.bias.copy_(torch.randn(3))
        plain.bias.copy_(layer.bias / beta)
    x = torch.randn(4, 3, 50)
    assert torch.equal(layer(x), plain(x))
    without = NormalizedSign(None, beta)
    assert list(without.parameters()) == []
    assert torch.equal(without(x), Sign()(x))


def test_normalized_sign_refuses():
    for beta in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="beta must be a positive number"):
            NormalizedSign(3, beta)
    with pytest.raises(ValueError, match="approx_sign"):
        NormalizedSign(3, surrogate="approxsign")


# --- activations with shifts ---


@pytest.mark.parametrize("shape", SHAPES)
def test_qrprelu_formula_and_gradients(shape):
    layer = QRPReLU(3).double()
    assert layer.exponent.tolist() == [-3.0] * 3
    with torch.no_grad():
        layer.shift_in.copy_(torch.tensor([0.5, -0.25, 0.0]))
        layer.exponent.copy_(torch.tensor([-2.6, 0.5, 1.5]))  # halves go to the even number
        layer.shift_out.copy_(torch.tensor([-1.0, 0.0, 3.0]))
    assert layer.slope.tolist() == [0.125, 1.0, 4.0]
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
    torch.testing.assert_close(layer.shift_in.grad, per_channel(expected))
    slope_gradient = per_channel(upstream * u * (u < 0))
    torch.testing.assert_close(
        layer.exponent.grad, math.log(2) * layer.slope.detach() * slope_gradient
    )
    torch.testing.assert_close(layer.shift_out.grad, per_channel(upstream))


@pytest.mark.parametrize("shape", SHAPES)
def test_rleakyrelu_is_an_rprelu_with_a_fixed_slope(shape):
    layer, learned = RLeakyReLU(3).double(), RPReLU(3, init=0.125).double()
    for parameter in (layer.shift_in, layer.shift_out):
        with torch.no_grad():
            parameter.copy_(torch.randn(3))
    learned.load_state_dict({**learned.state_dict(), **layer.state_dict()})
    x = torch.randn(shape, dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    upstream = torch.randn_like(x)
    y, expected = layer(ours), learned(theirs)
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    y.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(layer.shift_in.grad, learned.shift_in.grad)
    torch.testing.assert_close(layer.shift_out.grad, learned.shift_out.grad)
    assert RLeakyReLU(3, slope=2.0**-7).slope == 2.0**-7
    with pytest.raises(ValueError, match="slope must be finite"):
        RLeakyReLU(3, slope=math.nan)


@pytest.mark.parametrize(
    "layer", [NormalizedSign(3), QRPReLU(3), RLeakyReLU(3)], ids=lambda layer: type(layer).__name__
)
def test_wrong_channels_are_refused(layer):
    for shape in [(2, 4, 5), (3,)]:
        with pytest.raises(ValueError, match=rf"{type(layer).__name__} expects \[N, 3, ...\]"):
            layer(torch.zeros(shape))
    with pytest.raises(ValueError, match="channels"):
        type(layer)(0)


def test_export():
    model = torch.nn.Sequential(NormalizedSign(4, 0.8), QRPReLU(4), RLeakyReLU(4), MaskLayer())
    x = torch.randn(2, 4, 6, 6)
    program = torch.export.export(model, (x,))
    assert torch.equal(program.module()(x), model(x))
