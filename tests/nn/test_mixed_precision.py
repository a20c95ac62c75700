"""Under autocast, evaluation still sums integers exactly."""

import pytest
import torch

from signbit.nn import BinaryConv2d, BinaryLinear, QuantConv2d, QuantLinear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_binary_sums_are_exact_in_evaluation(dtype):
    x = torch.ones(1, 64, 3, 3, dtype=dtype)
    layer = BinaryConv2d(64, 1, 3, weight_quantizer="sign").eval()
    with torch.no_grad():
        layer.weight.fill_(0.1)
        layer.weight[0, 0, 0, 0] = -0.1
    with torch.autocast("cpu", torch.bfloat16):
        # 574 is no bfloat16.
        assert layer(x).item() == 64 * 9 - 2
    linear = BinaryLinear(301, 1, weight_quantizer="sign").eval()
    with torch.no_grad():
        linear.weight.fill_(0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(torch.ones(1, 301, dtype=dtype)).item() == 301


@pytest.mark.parametrize("training", [True, False])
def test_eight_bit_layers_are_exact_in_training_too(training):
    for layer, x in [
        (QuantConv2d(3, 4, 3), torch.randn(2, 3, 6, 6)),
        (QuantLinear(30, 4), torch.randn(5, 30)),
    ]:
        layer.set_input_range(-2.0, 2.0)
        layer.freeze()
        layer.train(training)
        expected = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer(x), expected)


def test_low_precision_inputs_are_quantised_in_float32():
    layer = QuantLinear(30, 4).eval()
    layer.set_input_range(-2.0, 2.0)
    x = torch.randn(5, 30).bfloat16()
    assert torch.equal(layer(x), layer(x.float()))
