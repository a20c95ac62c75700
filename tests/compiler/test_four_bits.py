"""Layers of 4 bits: PyTorch's integers, the reference's and the engine's are the same."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import signbit
from signbit import nn as snn
from signbit.compiler import read_graph, reference
from signbit.compiler.capture import capture
from signbit.compiler.emit import emit
from signbit.compiler.ir import Graph
from signbit.compiler.passes import lower
from signbit.runtime import Session, instruction_sets
from tests.compiler.build import check_in_float64
from tests.runtime.networks import make_awkward


def steps_of(graph: Graph, kind: str) -> list[dict[str, int | float]]:
    return [s.attrs for node in graph.nodes for s in node.epilogue if s.kind == kind]


def check_equal(model: nn.Module, x: Tensor) -> Graph:
    """PyTorch, the reference, and every instruction set: the same float32 numbers."""
    model.eval()
    compiled = signbit.compile(model, x)
    expected = model(x).detach().numpy()
    np.testing.assert_array_equal(reference.run(compiled.graph, x.numpy())[0], expected)
    for isa in instruction_sets():
        for threads in (1, 2):
            found = compiled.session(threads=threads, isa=isa)(x.numpy())
            np.testing.assert_array_equal(found, expected, f"{isa}, {threads} threads")
    return compiled.graph


@pytest.mark.parametrize("zero_point", range(16))
@pytest.mark.parametrize("pixels", [1, 163])
def test_every_product(zero_point: int, pixels: int) -> None:
    """Every weight with every input: ties, what lies between two numbers, and beyond both ends."""
    numbers = torch.cat([torch.arange(-20, 20.25, 0.25), torch.tensor([1e30, -1e30])])
    model = nn.Sequential(snn.QuantConv2d(2, 15, 1, bits=4))
    with torch.no_grad():
        model[0].weight.fill_(7.0)  # the greatest of each channel sets its scale to 1
        model[0].weight[:, 0, 0, 0] = torch.arange(-7, 8)
        model[0].bias.copy_(torch.linspace(-1, 1, 15))
    assert model[0].quantized_weight()[0][:, 0].flatten().tolist() == list(range(-7, 8))
    model[0].set_input_range(-zero_point, 15 - zero_point)
    assert model[0].input_zero_point == zero_point
    pairs = torch.stack([numbers, numbers.flip(0)])
    # many vectors, or a row of pixels
    x = pairs.T.reshape(-1, 2, 1, 1) if pixels == 1 else pairs.reshape(1, 2, 1, -1)
    graph = check_equal(model, x)
    assert steps_of(graph, "quant8") == [{"inv_scale": 1.0, "zero_point": zero_point, "levels": 15}]
    q = torch.clamp(torch.round(pairs), -zero_point, 15 - zero_point)
    weight = torch.tensor([[w, 7.0] for w in range(-7, 8)])
    sums = (weight @ q) + model[0].bias.detach()[:, None]
    found = model(x).detach()
    np.testing.assert_array_equal(found.reshape(-1, 15).T if pixels == 1 else found[0, :, 0], sums)


CONVOLUTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 7, "stride": 2, "padding": 3, "bias": False},
    {"kernel_size": 1, "stride": 2, "groups": 3},
    {"kernel_size": (3, 2), "stride": (1, 2), "padding": (2, 0), "dilation": (2, 1)},
    {"kernel_size": 3, "padding": 1, "groups": 9},
]


@pytest.mark.parametrize("arguments", CONVOLUTIONS)
def test_convolutions(arguments: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(snn.QuantConv2d(9, 18, bits=4, **arguments))
    model[0].set_input_range(-1.5, 2.0)
    check_equal(model, torch.randn(2, 9, 13, 11) * 1.5)


@pytest.mark.parametrize("features", [1, 70, 3000])
def test_linear_layers(features: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), snn.QuantLinear(features, 37, bits=4))
    with torch.no_grad():
        model[1].weight[5] = model[1].weight[5].abs().max()  # the largest sum
    model[1].set_input_range(0.0, 1.0)
    x = torch.rand(3, features, 1, 1) * 1.2
    x[0] = 1.0
    check_equal(model, x)


class Gated(nn.Module):
    """A network as BNext has them: a stem, a gate and a head of few bits around binary layers."""

    def __init__(self, stem: int, gate: int, head: int):
        super().__init__()
        self.stem = nn.Sequential(
            snn.QuantConv2d(3, 8, 3, padding=1, bits=stem), nn.BatchNorm2d(8), nn.PReLU(8)
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), snn.QuantConv2d(8, 4, 1, bits=gate), nn.ReLU(),
            snn.QuantConv2d(4, 8, 1, bits=gate), nn.Sigmoid(),
        )  # fmt: skip
        self.body = nn.Sequential(snn.RSign(8), snn.BinaryConv2d(8, 8, 3, padding=1))
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), snn.QuantLinear(8, 5, bits=head)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.body(x) * self.gate(x) + x)


def gated(stem: int, gate: int, head: int) -> tuple[Gated, Tensor]:
    torch.manual_seed(1)
    model = Gated(stem, gate, head)
    make_awkward(model, 3)
    x = torch.randn(3, 3, 11, 9)
    signbit.calibrate(model, [x], method="percentile", percentile=98)
    return model, x


@pytest.mark.parametrize("bits", itertools.product([4, 8], repeat=3))
def test_networks(bits: tuple[int, int, int]) -> None:
    model, x = gated(*bits)
    compiled = signbit.compile(model, x)  # verifies
    stem, gate, head = (2**b - 1 for b in bits)
    found = steps_of(compiled.graph, "quant8")
    assert sorted(step["levels"] for step in found) == sorted([stem, gate, gate, head])
    expected = reference.run(compiled.graph, x.numpy())[0]
    for isa in instruction_sets():
        np.testing.assert_array_equal(compiled.session(isa=isa)(x.numpy()), expected, isa)
    check_in_float64(model, x)


def test_pixels_go_through_a_table_of_sixteen_numbers() -> None:
    model = nn.Sequential(snn.QuantConv2d(3, 6, 3, padding=1, bits=4))
    model[0].set_input_range(-0.7, 0.9)
    mean, std = [0.5, 0.4, 0.3], [0.3, 0.2, 0.25]
    pixels = np.arange(256 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
    x = (torch.from_numpy(pixels).float() / 255 - torch.tensor(mean)) / torch.tensor(std)
    x = x.permute(0, 3, 1, 2).contiguous()
    compiled = signbit.compile(model, x, preprocessing={"mean": mean, "std": std})
    expected = model.eval()(x).detach().numpy()
    np.testing.assert_array_equal(reference.run(compiled.graph, pixels)[0], expected)
    for isa in instruction_sets():
        np.testing.assert_array_equal(compiled.session(isa=isa)(pixels), expected, isa)


def test_numbers_beyond_the_range_are_no_difference() -> None:
    model = nn.Sequential(snn.QuantConv2d(3, 4, 1, bits=4), snn.Sign(), snn.BinaryConv2d(4, 2, 1))
    model[0].set_input_range(-1.0, 1.0)
    x = torch.randn(2, 3, 8, 8) * 3
    compiled = signbit.compile(model, x)
    found = signbit.diff(model, compiled, x)
    assert found.equal
    (step,) = steps_of(compiled.graph, "quant8")
    step["levels"] = 255
    assert not signbit.diff(model, emit(compiled.graph), x).equal


class Three(nn.Module):
    def __init__(self, bits: tuple[int, int, int]):
        super().__init__()
        self.layers = nn.ModuleList(snn.QuantConv2d(3, 4, 1, bits=b) for b in bits)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[0](x) + self.layers[1](x) + self.layers[2](x)


def test_only_layers_of_as_many_bits_share_an_input() -> None:
    model = Three((4, 8, 4))
    for layer in model.layers:
        layer.set_input_range(0.0, 255.0 if layer.bits == 8 else 15.0)  # the same scale
    x = torch.rand(1, 3, 4, 4) * 300
    graph = signbit.compile(model, x).graph
    assert [step["levels"] for step in steps_of(graph, "quant8")] == [15, 255]


def test_a_file_keeps_bits_and_takes_half_the_bytes() -> None:
    model = nn.Sequential(snn.QuantConv2d(64, 64, 3, bits=4), snn.QuantConv2d(64, 64, 3))
    for layer in model:
        layer.set_input_range(-1, 1)
    compiled = signbit.compile(model, torch.randn(1, 64, 8, 8))
    data = emit(compiled.graph)
    weights = 64 * 64 * 9
    assert 0 <= len(data) - weights - weights // 2 < 4096
    read = read_graph(data)
    for layer, node in zip(model, (n for n in read.nodes if n.op == "conv_q8"), strict=True):
        np.testing.assert_array_equal(node.params["weight"], layer.quantized_weight()[0].numpy())
    x = np.random.default_rng(0).standard_normal((2, 64, 7, 9), np.float32)
    np.testing.assert_array_equal(Session(data)(x), reference.run(read, x)[0])


def test_captured_graph_says_the_bits() -> None:
    model, x = gated(8, 4, 8)
    graph = capture(model, x).graph
    found = {node.path: node.attrs["bits"] for node in graph.nodes if "bits" in node.attrs}
    assert found == {"stem.0": 8, "gate.1": 4, "gate.3": 4, "head.2": 8}
    assert [n.attrs for n in lower(graph).nodes if n.op == "conv_q8" and "bits" in n.attrs] == []


def test_integer_programs_refuse_them() -> None:
    model, x = gated(4, 4, 4)
    with pytest.raises(signbit.CompileError, match="scales are real numbers"):
        signbit.compile(model, x, arithmetic="integer")
