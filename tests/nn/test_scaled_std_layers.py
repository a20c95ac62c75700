"""Convolutions with standardised weights: formulas, stages, and what the compiler is told."""

import copy

import pytest
import torch
import torch.nn.functional as F

from signbit.nn import ScaledStdBinaryConv2d, ScaledStdConv2d, set_binary_weights
from signbit.nn.binary import FixedWeight
from signbit.quantizers import scaled_standardization


def spread_gains(layer):
    with torch.no_grad():
        layer.gain.copy_(torch.linspace(-1.5, 2, layer.out_channels).view(-1, 1, 1, 1))
    return layer


def test_real_convolution_uses_its_effective_weight():
    layer = spread_gains(ScaledStdConv2d(4, 6, (3, 1), stride=2, padding=(1, 0), groups=2))
    x = torch.randn(2, 4, 7, 5)
    weight = layer.gain * scaled_standardization(layer.weight)
    assert torch.equal(layer.effective_weight(), weight)
    assert torch.equal(layer(x), F.conv2d(x, weight, None, 2, (1, 0), groups=2))
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        "weight": (6, 2, 3, 1),
        "gain": (6, 1, 1, 1),
    }


def test_variance_is_kept():
    torch.manual_seed(0)
    y = ScaledStdConv2d(64, 64, 3, padding=1)(torch.randn(4, 64, 16, 16))
    assert y[:, :, 1:-1, 1:-1].var().item() == pytest.approx(1, abs=0.1)


def test_authors_start():
    layer = ScaledStdBinaryConv2d(8, 4, 3)
    assert 0 <= layer.weight.min() < layer.weight.max() <= 1e-3
    assert (layer.gain == 1).all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scale", ["real", "power_of_two"])
def test_binary_weight_is_what_forward_uses(scale, training):
    layer = spread_gains(ScaledStdBinaryConv2d(8, 5, 3, stride=2, padding=1, scale=scale))
    layer.train(training)
    x = torch.randint(0, 2, (2, 8, 6, 6)) * 2.0 - 1
    signs, factors = layer.binary_weight()
    assert signs.dtype == torch.int8
    centred = layer.weight - layer.weight.mean((1, 2, 3), keepdim=True)
    assert torch.equal(signs, torch.where(centred >= 0, 1, -1).to(torch.int8))
    sums = F.conv2d(x, signs.float(), None, 2, 1)
    assert torch.equal(sums, sums.round())
    assert torch.equal(layer(x), sums * factors.view(1, -1, 1, 1))
    if scale == "power_of_two":
        assert torch.equal(factors.abs(), torch.exp2(factors.abs().log2().round()))


@pytest.mark.parametrize("scale", ["real", "power_of_two"])
def test_float64_copy_with_the_compiled_weight(scale):
    """The way in which `signbit.verify` compares: signs and scales of float32, sums of float64."""
    layer = spread_gains(ScaledStdBinaryConv2d(8, 5, 3, scale=scale)).eval()
    double = copy.deepcopy(layer)
    double.weight_quantizer = FixedWeight(*layer.binary_weight())
    double = double.double()
    x = torch.randint(0, 2, (2, 8, 6, 6)) * 2.0 - 1
    signs, factors = layer.binary_weight()
    expected = F.conv2d(x.double(), signs.double()) * factors.double().view(1, -1, 1, 1)
    assert torch.equal(double(x.double()), expected)


def test_binary_weights_on_a_real_input():
    layer = spread_gains(ScaledStdBinaryConv2d(8, 5, 1)).eval()
    x = torch.randn(2, 8, 4, 4)
    signs, factors = layer.binary_weight()
    expected = F.conv2d(x, signs * factors.view(-1, 1, 1, 1))
    torch.testing.assert_close(layer(x), expected)


def test_stage_one_uses_standardised_real_weights_and_keeps_the_gain():
    layer = spread_gains(ScaledStdBinaryConv2d(8, 5, 3, scale="power_of_two"))
    set_binary_weights(layer, False)
    x = torch.randn(2, 8, 6, 6)
    weight = layer.gain * scaled_standardization(layer.weight)
    assert torch.equal(layer(x), F.conv2d(x, weight))
    gain = layer.gain.clone()
    set_binary_weights(layer, True)
    assert torch.equal(layer.gain, gain)
    assert not torch.equal(layer(x), F.conv2d(x, weight))


def test_state_dict_round_trip():
    layer = spread_gains(ScaledStdBinaryConv2d(8, 5, 3))
    assert set(layer.state_dict()) == {"weight", "weight_quantizer.gain"}
    other = ScaledStdBinaryConv2d(8, 5, 3)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(other(x), layer(x))


@pytest.mark.parametrize("kind", [ScaledStdConv2d, ScaledStdBinaryConv2d])
def test_bad_arguments_are_refused(kind):
    with pytest.raises(ValueError, match="groups=3 must divide"):
        kind(4, 6, 3, groups=3)
    with pytest.raises(ValueError, match="kernel_size"):
        kind(4, 6, 0)
    with pytest.raises(ValueError, match="single weight is standardised to 0"):
        kind(4, 4, 1, groups=4)


def test_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="unknown scale 'pow2'"):
        ScaledStdBinaryConv2d(4, 4, 3, scale="pow2")


@pytest.mark.parametrize("training", [True, False])
def test_export(training):
    layer = ScaledStdBinaryConv2d(4, 4, 3, scale="power_of_two").train(training)
    x = torch.randn(2, 4, 6, 6)
    program = torch.export.export(layer, (x,))
    assert torch.equal(program.module()(x), layer(x))


def test_printed():
    assert "kernel_size=(3, 3)" in repr(ScaledStdConv2d(3, 4, 3))
    assert "scale=power_of_two" in repr(ScaledStdBinaryConv2d(3, 4, 3, scale="power_of_two"))
