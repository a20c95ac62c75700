"""How A&B BNN's layers are read: what a program computes with is what the layer uses."""

import numpy as np
import torch

import signbit.nn as snn
from signbit.compiler.layers import read_layer
from signbit.quantizers import scaled_standardization


def test_slopes_that_are_powers_of_two():
    layer = snn.QRPReLU(4)
    with torch.no_grad():
        layer.exponent.copy_(torch.tensor([-2.6, 0.5, 1.5, -19.2]))
        layer.shift_in.copy_(torch.randn(4))
    read = read_layer(layer)
    assert (read.op, read.refused) == ("rprelu", [])
    np.testing.assert_array_equal(read.params["slope"], [0.125, 1.0, 4.0, 2.0**-19])
    np.testing.assert_array_equal(read.params["shift_in"], layer.shift_in.detach().double())


def test_one_fixed_slope():
    read = read_layer(snn.RLeakyReLU(3, slope=2.0**-7))
    assert (read.op, read.refused) == ("rprelu", [])
    np.testing.assert_array_equal(read.params["slope"], [2.0**-7] * 3)
    assert set(read.params) == {"shift_in", "slope", "shift_out"}


def test_the_factor_of_a_normalized_sign_is_gone():
    layer = snn.NormalizedSign(3, beta=0.7)
    with torch.no_grad():
        layer.bias.copy_(torch.randn(3))
    read = read_layer(layer)
    assert (read.op, read.refused) == ("sign", [])
    np.testing.assert_array_equal(read.params["bias"], layer.bias.detach().double().numpy() / 0.7)
    assert read_layer(snn.NormalizedSign(None, beta=0.7)).params == {}


def test_standardised_weights_are_baked():
    layer = snn.ScaledStdConv2d(3, 4, 3, stride=2, padding=1)
    with torch.no_grad():
        layer.gain.copy_(torch.randn(4, 1, 1, 1))
    read = read_layer(layer)
    assert read.op == "conv2d"
    assert read.attrs["stride_h"] == 2
    weight = layer.gain.double() * scaled_standardization(layer.weight.double())
    np.testing.assert_array_equal(read.params["weight"], weight.detach().numpy())
    assert layer.weight.dtype == torch.float32


def test_binary_weights_with_their_whole_scale():
    layer = snn.ScaledStdBinaryConv2d(8, 4, 3, scale="power_of_two")
    with torch.no_grad():
        layer.gain.copy_(torch.tensor([1.0, -2.0, 0.3, 5.0]).view(4, 1, 1, 1))
    read = read_layer(layer)
    signs, scale = layer.binary_weight()
    assert (read.op, read.refused) == ("binary_conv2d", [])
    np.testing.assert_array_equal(read.params["weight"], signs.numpy())
    np.testing.assert_array_equal(read.params["scale"], scale.double().numpy())
    layer.set_binary_weights(False)
    assert "still real-valued" in read_layer(layer).refused[0]


def test_the_mask_layer_is_for_training():
    assert "not supported" in read_layer(snn.MaskLayer()).refused[0]
