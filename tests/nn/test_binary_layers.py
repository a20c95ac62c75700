"""Binary layers against a naive integer convolution, and their stages, scales and clamps."""

import itertools

import numpy as np
import pytest
import torch

from signbit.nn import BinaryConv2d, BinaryLinear, Sign, set_binary_weights
from signbit.quantizers import PlainSign, WeightQuantizer, hard_sign


def signs_like(*shape: int) -> torch.Tensor:
    return torch.randint(0, 2, shape).float() * 2 - 1


def naive_conv2d(x, w, stride, padding, dilation, groups, padding_value):
    """Integer convolution by its definition: x [N, I, H, W], w [O, I / groups, KH, KW]."""
    (py, px), (sy, sx), (dy, dx) = padding, stride, dilation
    x = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)), constant_values=padding_value)
    outputs, _, kh, kw = w.shape
    height = (x.shape[2] - dy * (kh - 1) - 1) // sy + 1
    width = (x.shape[3] - dx * (kw - 1) - 1) // sx + 1
    y = np.zeros((x.shape[0], outputs, height, width), dtype=np.int64)
    w = w.reshape(groups, outputs // groups, -1)
    for i, j in itertools.product(range(height), range(width)):
        rows = slice(i * sy, i * sy + dy * (kh - 1) + 1, dy)
        columns = slice(j * sx, j * sx + dx * (kw - 1) + 1, dx)
        patch = x[:, :, rows, columns].reshape(x.shape[0], groups, -1, 1)
        y[:, :, i, j] = (w @ patch).reshape(x.shape[0], outputs)
    return y


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("dilation", [1, 2, (1, 3)])
@pytest.mark.parametrize("stride", [1, 2, (2, 1)])
@pytest.mark.parametrize("kernel", [1, 3, (1, 3), (2, 5)])
def test_conv_is_the_naive_integer_convolution(kernel, stride, dilation, groups):
    for padding, value in itertools.product([0, 1, (2, 1)], [-1, 0, 1]):
        layer = BinaryConv2d(
            4, 8, kernel, stride, padding, dilation, groups, value, weight_quantizer="sign"
        ).eval()
        with torch.no_grad():
            layer.weight[0, 0, 0] = 0.0
            layer.weight[1, 0, 0] = -0.0
        x = signs_like(2, 4, 9, 14)
        w = np.where(layer.weight.detach().numpy() >= 0, 1, -1)
        expected = naive_conv2d(
            x.numpy().astype(np.int64),
            w, layer.stride, layer.padding, layer.dilation, groups, value,
        )  # fmt: skip
        np.testing.assert_array_equal(layer(x).detach().numpy(), expected)


def test_large_sums_are_exact_integers():
    layer = BinaryConv2d(1024, 3, 3, padding=1, weight_quantizer="sign").eval()
    x = signs_like(1, 1024, 4, 4)
    w = np.where(layer.weight.detach().numpy() >= 0, 1, -1)
    expected = naive_conv2d(x.numpy().astype(np.int64), w, (1, 1), (1, 1), (1, 1), 1, 0)
    np.testing.assert_array_equal(layer(x).detach().numpy(), expected)


@pytest.mark.parametrize("training", [True, False])
def test_scale_multiplies_the_exact_sum(training):
    layer = BinaryConv2d(8, 4, 3, padding=1).train(training)
    x = signs_like(2, 8, 5, 5)
    signs, scale = layer.binary_weight()
    assert signs.dtype == torch.int8
    assert set(signs.unique().tolist()) == {-1, 1}
    expected_scale = layer.weight.detach().abs().mean((1, 2, 3))
    torch.testing.assert_close(scale, expected_scale, rtol=1e-6, atol=0)
    w = signs.numpy().astype(np.int64)
    sums = naive_conv2d(x.numpy().astype(np.int64), w, (1, 1), (1, 1), (1, 1), 1, 0)
    expected = sums.astype(np.float32) * scale.numpy().reshape(1, -1, 1, 1)
    np.testing.assert_array_equal(layer(x).detach().numpy(), expected)


def test_plain_sign_has_scale_one():
    _, scale = BinaryConv2d(8, 4, 3, weight_quantizer="sign").binary_weight()
    assert scale.tolist() == [1.0] * 4


def test_learned_scale_starts_from_the_initial_weight():
    layer = BinaryConv2d(8, 4, 3, weight_quantizer="learned")
    torch.testing.assert_close(layer.binary_weight()[1], layer.weight.abs().mean((1, 2, 3)))


@pytest.mark.parametrize("quantizer", ["sign", "mean_abs", "learned"])
def test_conv_gradients(quantizer):
    layer = BinaryConv2d(4, 6, 3, padding=1, weight_quantizer=quantizer).double()
    with torch.no_grad():
        layer.weight.mul_(60)  # some weights are outside the window
    x = signs_like(2, 4, 5, 5).double().requires_grad_()
    y = layer(x)
    upstream = torch.randn_like(y)
    y.backward(upstream)
    signs, scale = layer.binary_weight()
    effective = (signs * scale.view(-1, 1, 1, 1)).requires_grad_()
    x2 = x.detach().clone().requires_grad_()
    torch.nn.functional.conv2d(x2, effective, padding=1).backward(upstream)
    torch.testing.assert_close(x.grad, x2.grad)
    window = layer.weight.detach().abs() <= 1
    assert 0 < window.sum() < window.numel()
    torch.testing.assert_close(layer.weight.grad, effective.grad * scale.view(-1, 1, 1, 1) * window)


@pytest.mark.parametrize("quantizer", ["sign", "mean_abs", "learned"])
def test_linear_is_the_integer_product_times_scale(quantizer):
    layer = BinaryLinear(37, 5, weight_quantizer=quantizer)
    x = signs_like(3, 2, 37)
    signs, scale = layer.binary_weight()
    sums = x.numpy().astype(np.int64) @ signs.numpy().astype(np.int64).T
    expected = sums.astype(np.float32) * scale.numpy()
    np.testing.assert_array_equal(layer(x).detach().numpy(), expected)


def test_two_stages_of_training():
    model = torch.nn.Sequential(
        Sign(), BinaryConv2d(4, 4, 3, weight_quantizer="learned"), torch.nn.Flatten(),
        BinaryLinear(4, 2),
    )  # fmt: skip
    x = torch.randn(3, 4, 3, 3)
    assert set_binary_weights(model, False) is model
    conv, linear = model[1], model[3]
    expected = torch.nn.functional.conv2d(model[0](x), conv.weight)
    torch.testing.assert_close(conv(model[0](x)), expected, rtol=0, atol=0)
    assert not conv.binary_weights
    assert not linear.binary_weights
    with torch.no_grad():
        conv.weight.mul_(3)
    set_binary_weights(model, True)
    # What stage one has learned is where the learned scale starts from.
    torch.testing.assert_close(
        conv.weight_quantizer.scale, conv.weight.detach().abs().mean((1, 2, 3))
    )
    with torch.no_grad():
        conv.weight_quantizer.scale.fill_(7.0)
    set_binary_weights(model, True)
    assert conv.weight_quantizer.scale.tolist() == [7.0] * 4


def test_latent_clamp_in_training_only():
    layer = BinaryConv2d(2, 2, 1, latent_clamp=0.5)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, -2.0, 0.1, 0.5]).view(2, 2, 1, 1))
    x = signs_like(1, 2, 2, 2)
    layer.eval()(x)
    assert layer.weight.max() == 2.0
    layer.train()
    # Twice in one graph: clamping must not invalidate what the first call has saved.
    (layer(x) + layer(-x)).sum().backward()
    assert layer.weight.flatten().tolist() == pytest.approx([0.5, -0.5, 0.1, 0.5])
    layer.clamp_latent_(0.25)
    assert layer.weight.abs().max() == 0.25


def test_arguments_are_checked():
    for arguments, match in [
        ({"padding_value": 2}, "padding_value"),
        ({"groups": 3}, "groups=3"),
        ({"stride": 0}, "stride"),
        ({"padding": -1}, "padding"),
        ({"dilation": (1, 2, 3)}, "dilation"),
        ({"latent_clamp": 0.0}, "latent_clamp"),
        ({"weight_quantizer": "means_abs"}, "mean_abs"),
    ]:
        with pytest.raises(ValueError, match=match):
            BinaryConv2d(4, 4, 3, **arguments)
    with pytest.raises(ValueError, match="kernel_size"):
        BinaryConv2d(4, 4, 0)
    with pytest.raises(ValueError, match="in_channels"):
        BinaryConv2d(0, 4, 3)
    with pytest.raises(ValueError, match="out_features"):
        BinaryLinear(4, 0)


def test_a_ready_quantizer_is_used():
    quantizer = PlainSign(window=0.5)
    assert BinaryLinear(4, 4, quantizer).weight_quantizer is quantizer


@pytest.mark.parametrize("quantizer", ["sign", "mean_abs", "learned"])
def test_state_dict_round_trip(quantizer):
    layer = BinaryConv2d(4, 8, 3, weight_quantizer=quantizer)
    other = BinaryConv2d(4, 8, 3, weight_quantizer=quantizer)
    x = signs_like(1, 4, 5, 5)
    assert not torch.equal(layer(x), other(x))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), other(x))


class Opposite(WeightQuantizer):
    """Weights are minus their signs, times a factor."""

    def __init__(self, factor: float = 1.0):
        super().__init__()
        self.factor = factor

    def forward(self, weight):
        return -hard_sign(weight) * self.factor, None


def test_compiled_signs_are_the_quantizers_own():
    layer = BinaryConv2d(3, 4, 3, weight_quantizer=Opposite())
    signs, scale = layer.binary_weight()
    assert signs.dtype == torch.int8
    assert torch.equal(signs, -hard_sign(layer.weight).to(torch.int8))
    assert torch.equal(scale, torch.ones(4))


def test_signs_that_are_no_signs_are_refused():
    layer = BinaryConv2d(3, 4, 3, weight_quantizer=Opposite(0.5))
    with pytest.raises(ValueError, match=r"Opposite: .*exactly -1 or \+1"):
        layer.binary_weight()


def test_bias_is_added_behind_the_scale():
    x = signs_like(2, 4, 5, 5)
    layer = BinaryConv2d(4, 6, 3, padding=1, bias=True)
    plain = BinaryConv2d(4, 6, 3, padding=1)
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "bias"})
    assert torch.equal(layer(x), plain(x))  # it starts at 0
    torch.nn.init.normal_(layer.bias)
    torch.testing.assert_close(layer(x), plain(x) + layer.bias.view(1, -1, 1, 1), rtol=0, atol=0)
    layer(x).sum().backward()
    assert layer.bias.grad.tolist() == [50.0] * 6  # images times pixels
    set_binary_weights(layer, False)
    expected = torch.nn.functional.conv2d(x, layer.weight, padding=1)
    torch.testing.assert_close(layer(x), expected + layer.bias.view(1, -1, 1, 1))


def test_bias_of_a_linear_layer():
    layer = BinaryLinear(7, 3, bias=True)
    torch.nn.init.normal_(layer.bias)
    x = signs_like(2, 5, 7)
    signs, scale = layer.binary_weight()
    expected = (x @ signs.float().T) * scale + layer.bias
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("make", [lambda b: BinaryConv2d(2, 3, 1, bias=b),
                                  lambda b: BinaryLinear(2, 3, bias=b)])  # fmt: skip
def test_bias_is_part_of_state_and_description(make):
    with_bias, without = make(True), make(False)
    assert with_bias.state_dict()["bias"].tolist() == [0.0] * 3
    assert "bias" not in without.state_dict()
    assert without.bias is None
    assert "bias=True" in repr(with_bias)
    assert "bias" not in repr(without)
    with_bias.bias.data.fill_(5.0)
    with_bias.reset_parameters()
    assert with_bias.bias.tolist() == [0.0] * 3
