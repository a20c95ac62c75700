"""Both networks, and every way of joining layers that they do not show, against PyTorch.

In float64 on both sides, where rounding does not reach: every bit and every output.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import signbit
from signbit import nn as snn
from signbit.compiler.ir import MAX_STEPS, Graph, Type
from tests.compiler.build import check_in_float64
from tests.runtime.networks import make_awkward


def kinds(graph: Graph) -> list[list[str]]:
    """The epilogue of every node, by its steps' names."""
    return [[step.kind for step in node.epilogue] for node in graph.nodes]


@pytest.mark.parametrize("awkward", [False, True])
@pytest.mark.parametrize(("stem", "size"), [("cifar", 16), ("imagenet", 64)])
@pytest.mark.parametrize("name", ["bineal18", "reactnet18"])
def test_networks(name: str, stem: str, size: int, awkward: bool) -> None:
    torch.manual_seed(3)
    model = signbit.create_model(name, num_classes=7, stem=stem, width=0.125)
    x = torch.randn(2, 3, size, size)
    model(x)
    if awkward:
        make_awkward(model, 5)
        for module in model.modules():
            if isinstance(module, snn.RPReLU) and name == "bineal18":
                module.slope.data[1::5] = -0.5
    signbit.calibrate(model, [x])
    graph = check_in_float64(model, x)
    stored = {value.type for node in graph.nodes for value in node.outputs}
    if name == "bineal18":
        real = [v for node in graph.nodes for v in node.outputs if v.type == Type.F32]
        assert stored == {Type.B1, Type.I4, Type.U8, Type.F32}
        assert len(real) == 2  # pooled features and logits: bits everywhere else
    else:
        assert Type.I4 not in stored


def test_bineal_block_is_three_convolutions() -> None:
    torch.manual_seed(0)
    model = signbit.create_model("bineal18", num_classes=4, stem="cifar", width=0.125)
    x = torch.randn(1, 3, 8, 8)
    signbit.calibrate(model, [x])
    graph = check_in_float64(model, x)
    block = [node for node in graph.nodes if node.path.startswith("stages.0.0")]
    assert [node.path.rpartition(".")[2] for node in block] == ["conv1", "skip_conv", "conv2"]
    assert kinds(Graph(block, None, [], [])) == [
        ["threshold"],
        ["quant4_shift", "store"],
        ["quant4_shift", "add", "threshold"],
    ]


class Joined(nn.Module):
    """A body between an 8-bit stem and nothing: the output is the body's."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.stem = snn.QuantConv2d(3, 8, 3, padding=1)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x))


def joined(body: nn.Module, size: int = 6, seed: int = 0) -> Graph:
    torch.manual_seed(seed)
    model = Joined(body)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 20)
    x = torch.randn(2, 3, size, size)
    signbit.calibrate(model, [x])
    assert signbit.compile(model, x).report.engine == "equal"
    return check_in_float64(model, x)


def test_geometry_of_binary_convolutions() -> None:
    joined(
        nn.Sequential(
            snn.Sign(),
            snn.BinaryConv2d(8, 12, (3, 2), (2, 1), (2, 1), (2, 1), padding_value=1),
            nn.BatchNorm2d(12),
            snn.Sign(),
            snn.BinaryConv2d(12, 8, 3, padding=1, padding_value=-1, groups=1),
            snn.RSign(8),
            snn.BinaryConv2d(8, 16, 3, padding=1, groups=2, weight_quantizer="learned"),
        )
    )


def test_biases_of_binary_layers() -> None:
    """Before a sign they move its threshold, elsewhere they are added behind the scale."""
    net = nn.Sequential(
        snn.Sign(),
        snn.BinaryConv2d(8, 12, 3, bias=True),
        snn.Sign(),
        snn.BinaryConv2d(12, 6, 3, padding=1, bias=True),
        nn.PReLU(),
        nn.Flatten(),
        snn.RSign(1),  # one threshold for all: it may stand behind Flatten
        snn.BinaryLinear(6 * 16, 5, bias=True),
    )
    for index in (1, 3, 7):
        nn.init.uniform_(net[index].bias, -1, 1)
    bias = net[7].bias.detach().clone()
    graph = joined(net)
    convs = [node for node in graph.nodes if node.op == "conv_b1"]
    kinds = [[step.kind for step in node.epilogue] for node in convs]
    assert kinds == [["threshold"], ["threshold"], ["affine", "store"]]
    np.testing.assert_allclose(convs[2].epilogue[0].params["bias"], bias, rtol=1e-6)


def test_linear_layers_behind_flattened_maps() -> None:
    graph = joined(
        nn.Sequential(
            snn.Sign(),
            nn.Flatten(),
            snn.BinaryLinear(8 * 36, 20),
            nn.BatchNorm1d(20),
            nn.Dropout(0.5),
            snn.Sign(),
            snn.BinaryLinear(20, 12),
            nn.PReLU(12),
            snn.QuantLinear(12, 5),
        )
    )
    convs = [node for node in graph.nodes if node.op == "conv_b1"]
    assert [convs[0].attrs[k] for k in ("kernel_h", "kernel_w", "pad_h")] == [6, 6, 0]
    assert graph.flat_outputs == [True]


def test_what_differs_by_pixel_cannot_stand_behind_flatten() -> None:
    sign = snn.RSign(8 * 36)
    body = nn.Sequential(nn.Flatten(), nn.PReLU(), sign, snn.BinaryLinear(8 * 36, 5))
    nn.init.constant_(sign.bias, 0.3)
    joined(body)  # equal for all pixels
    body.float()[2].bias.data[7] = -0.3
    with pytest.raises(signbit.CompileError, match=r"body\.2: reads a flattened map of 6x6 pixels"):
        joined(body)


def test_quant_linear_behind_a_flattened_map_and_behind_bits() -> None:
    joined(nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), snn.QuantLinear(72, 9, bias=False)))
    head = [nn.Flatten(), snn.BinaryLinear(288, 6), snn.Sign(), snn.QuantLinear(6, 3)]
    joined(nn.Sequential(snn.Sign(), *head))


def test_pooling_of_bits_and_of_real_numbers() -> None:
    joined(
        nn.Sequential(
            snn.Sign(),
            nn.MaxPool2d(3, 2, 1),
            snn.BinaryConv2d(8, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.MaxPool2d(2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AvgPool2d(2),
            snn.RSign(8),
            nn.AdaptiveAvgPool2d(1),
        )
    )


class Branches(nn.Module):
    """Real values that several layers want: stored once, whatever reads them."""

    def __init__(self):
        super().__init__()
        self.sign, self.sign2 = snn.Sign(), snn.RSign(8)
        self.conv, self.conv2 = snn.BinaryConv2d(8, 8, 3, padding=1), snn.BinaryConv2d(8, 8, 1)
        self.bn, self.bn2, self.act = nn.BatchNorm2d(8), nn.BatchNorm2d(8), snn.RPReLU(8)
        self.quant = snn.QuantConv2d(8, 8, 1)
        self.quant2 = snn.QuantConv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.bn(self.conv(self.sign(x)))
        z = self.act(y) + y  # both operands live in one epilogue
        z = z + z
        w = self.conv2(self.sign2(z)) + self.quant(z)
        w = w + self.quant2(z) + x
        return self.bn2(w), z


def test_branching_real_values_and_two_outputs() -> None:
    graph = joined(Branches())
    assert len(graph.outputs) == 2
    quantised = [v for node in graph.nodes for v in node.outputs if v.type == Type.U8]
    assert len(quantised) == 2  # the image, and z once for both 8-bit convolutions


class SharedSum(nn.Module):
    """A convolution whose integer sum an INT4 add and a real-valued path both want."""

    def __init__(self):
        super().__init__()
        self.sign = snn.Sign()
        self.a, self.b = snn.BinaryConv2d(8, 8, 3, padding=1), snn.BinaryConv2d(8, 8, 1)
        self.bn, self.bn2, self.act = nn.BatchNorm2d(8), nn.BatchNorm2d(8), snn.RPReLU(8)
        self.add = snn.Int4Add()

    def forward(self, x: Tensor) -> Tensor:
        x = self.sign(x)
        a, b = self.a(x), self.b(x)
        return self.act(self.add(self.bn(a), b)) + self.bn2(a)


def test_integer_sum_with_two_readers() -> None:
    graph = joined(SharedSum())
    assert sum(node.path == "body.a" for node in graph.nodes) == 2


class EightBitOperand(nn.Module):
    """An INT4 add of a binary and an 8-bit convolution, whose sums are too many to try."""

    def __init__(self):
        super().__init__()
        self.sign, self.conv = snn.Sign(), snn.BinaryConv2d(8, 8, 3, padding=1)
        self.quant, self.bn = snn.QuantConv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.add, self.out = snn.Int4Add(), snn.RPReLU(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.add(self.conv(self.sign(x)), self.bn(self.quant(x))))


def test_int4_operand_of_8_bits() -> None:
    graph = joined(EightBitOperand())
    (conv,) = [node for node in graph.nodes if node.path == "body.quant"]
    assert conv.epilogue[0].kind.startswith("quant4")


class Reused(nn.Module):
    """One layer called twice."""

    def __init__(self):
        super().__init__()
        self.sign, self.conv = snn.Sign(), snn.BinaryConv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.sign(self.conv(self.sign(x))))


def test_layer_that_is_called_twice() -> None:
    graph = joined(Reused())
    assert [node.path for node in graph.nodes].count("body.conv") == 2


def test_unused_layers_leave_no_trace() -> None:
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.sign, self.conv = snn.Sign(), snn.BinaryConv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.conv(self.sign(x))
            return x

    graph = joined(Unused())
    assert [node.op for node in graph.nodes] == ["pointwise", "conv_q8"]


class Fan(nn.Module):
    """One stream whose bits, each cut elsewhere, many convolutions want; their sum comes out."""

    def __init__(self, branches: int, before: nn.Module):
        super().__init__()
        self.before = before
        self.signs = nn.ModuleList(snn.RSign(8) for _ in range(branches))
        self.convs = nn.ModuleList(snn.BinaryConv2d(8, 8, 1) for _ in range(branches))
        for sign in self.signs:
            nn.init.normal_(sign.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        total = x
        for sign, conv in zip(self.signs, self.convs, strict=True):
            total = total + conv(sign(x))
        return total


def binary() -> nn.Module:
    return nn.Sequential(snn.Sign(), snn.BinaryConv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))


LONG = {
    "14 branches of real numbers": lambda: Fan(14, nn.Identity()),
    "14 branches of integer sums": lambda: Fan(14, binary()),
    "30 branches of integer sums": lambda: Fan(30, binary()),
    "10 branches": lambda: Fan(10, binary()),
    "11 branches": lambda: Fan(11, binary()),
    "12 branches": lambda: Fan(12, binary()),
    "30 branches behind a pool": lambda: Fan(30, nn.MaxPool2d(2)),
    "8 batch norms and PReLUs": lambda: nn.Sequential(
        *(layer for _ in range(8) for layer in (nn.BatchNorm2d(8), nn.PReLU(8)))
    ),
    "24 batch norms and PReLUs behind bits": lambda: nn.Sequential(
        binary(), *(layer for _ in range(24) for layer in (nn.BatchNorm2d(8), nn.PReLU(8)))
    ),
}


@pytest.mark.parametrize("name", LONG)
def test_epilogues_that_are_too_long_are_split(name: str) -> None:
    graph = joined(LONG[name]())
    assert all(len(node.epilogue) <= MAX_STEPS for node in graph.nodes)
    if name == "8 batch norms and PReLUs":
        assert [len(node.epilogue) for node in graph.nodes if node.epilogue][1:] == [12, 6]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bineal18", "reactnet18"])
def test_full_size_networks_compile_and_verify(name: str) -> None:
    torch.manual_seed(0)
    model = signbit.create_model(name, num_classes=1000)
    make_awkward(model, 1)
    x = torch.randn(1, 3, 224, 224)
    signbit.calibrate(model, [x])
    assert signbit.compile(model, x).report.engine == "equal"


def test_model_keeps_its_modes_and_weights() -> None:
    model = signbit.create_model("bineal18", num_classes=4, stem="cifar", width=0.0625)
    x = torch.randn(1, 3, 8, 8)
    signbit.calibrate(model, [x])
    model.train()
    model.stages[0][0].bn1.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    signbit.compile(model, x)
    assert model.training
    assert not model.stages[0][0].bn1.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
