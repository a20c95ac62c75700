"""Compilers of PyTorch see the layers: torch.export, and torch.compile without a backend."""

import pytest
import torch

from signbit.nn import BinaryConv2d, Int4Add, QuantConv2d, RPReLU, RSign, Sign


def operations(program: torch.export.ExportedProgram) -> set[str]:
    return {str(n.target) for n in program.graph.nodes if n.op == "call_function"}


@pytest.mark.parametrize("quantizer", ["sign", "mean_abs", "learned"])
@pytest.mark.parametrize("training", [True, False])
def test_binary_block_exports(quantizer, training):
    model = torch.nn.Sequential(
        RSign(4, "approx_sign"),
        BinaryConv2d(4, 8, 3, padding=1, weight_quantizer=quantizer),
        RPReLU(8),
        Sign("swish"),
    ).train(training)
    x = torch.randn(2, 4, 6, 6)
    program = torch.export.export(model, (x,))
    assert torch.equal(program.module()(x), model(x))
    names = operations(program)
    assert "signbit.sign_approx.default" in names
    assert "signbit.sign_swish.default" in names
    assert "signbit.sign_clipped_identity.default" in names


def test_calibrated_layer_exports_as_the_quantised_one():
    layer = QuantConv2d(3, 4, 3, padding=1)
    layer.set_input_range(-1.0, 1.0)
    layer.freeze()
    layer.eval()
    x = torch.randn(1, 3, 5, 5)
    program = torch.export.export(layer, (x,))
    assert "signbit.round_half_even.default" in operations(program)
    assert torch.equal(program.module()(x), layer(x))


def test_int4_add_exports():
    class Add(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.add = Int4Add()

        def forward(self, a, b):
            return self.add(a, b)

    model = Add()
    a, b = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    program = torch.export.export(model, (a, b))
    assert torch.equal(program.module()(a, b), model(a, b))


def test_torch_compile_keeps_values_and_gradients_without_graph_breaks():
    layer = torch.nn.Sequential(RSign(4), BinaryConv2d(4, 4, 3, weight_quantizer="sign"))
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 4, 6, 6)
    compiled(x).square().sum().backward()
    gradients = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    layer(x).square().sum().backward()
    for compiled_gradient, parameter in zip(gradients, layer.parameters(), strict=True):
        torch.testing.assert_close(compiled_gradient, parameter.grad)
