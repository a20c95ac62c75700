"""Compiled networks with a block of each kind, small enough for a simulator."""

from __future__ import annotations

import pytest
import torch
from benchmarks.circuits import EightBit, spread
from torch import nn

import signbit
from signbit.compiler.ir import Graph
from signbit.models.ab_bnn import ABResNet, Parts
from signbit.models.bineal import BinealBlock
from signbit.nn import BinaryConv2d, QuantConv2d, QuantLinear, Sign

SIZE = 8


def settled(model: nn.Module) -> tuple[nn.Module, torch.Tensor]:
    """With constants that differ by channel, and the statistics of its images."""
    x = torch.randn(4, 3, SIZE, SIZE)
    spread(model)
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(x)
    return model.eval(), x


@pytest.fixture(scope="session")
def bineal_graph() -> Graph:
    """Blocks `3` (8 channels, stride 1) and `4` (8 to 16 channels, stride 2), 8-bit stem `0`."""
    torch.manual_seed(3)
    model, x = settled(
        nn.Sequential(
            QuantConv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            Sign(),
            BinealBlock(8, 8, 1),
            BinealBlock(8, 16, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            QuantLinear(16, 4),
        )
    )
    signbit.calibrate(model, [x])
    return signbit.compile(model, x, verify=False).graph


def ab_network(variant: str) -> nn.Module:
    """Two layers: `stages.0.0` of 8 channels, `stages.1.0` of 8 to 16 with stride 2."""
    return ABResNet(
        "reactnet", (2, 1, 1, 1), Parts(variant, None, "real", None), 4, "cifar", 0.125, 3
    )


@pytest.fixture(scope="session")
def ab_graph() -> Graph:
    torch.manual_seed(4)
    model, x = settled(ab_network("ab"))
    return signbit.compile(model, x, verify=False, arithmetic="integer").graph


@pytest.fixture(scope="session")
def batch_norm_graph() -> Graph:
    """The layers of `ab_graph` with batch norm and real slopes."""
    torch.manual_seed(5)
    model, x = settled(ab_network("batch_norm"))
    eight = signbit.to_8bit(model, x)
    signbit.calibrate(eight, [x])
    return signbit.compile(eight, x, verify=False).graph


@pytest.fixture(scope="session")
def eight_bit_graph() -> Graph:
    """8-bit convolutions `stem` and `conv` to 8 bits, and `head` to real numbers."""
    torch.manual_seed(6)
    model, x = settled(EightBit(8))
    signbit.calibrate(model, [x])
    return signbit.compile(model, x, verify=False).graph


@pytest.fixture(scope="session")
def odd_graph() -> Graph:
    """Binary convolutions of unusual shapes: `3`, `5`, `7`, and `9` with two groups."""
    torch.manual_seed(7)
    model, x = settled(
        nn.Sequential(
            QuantConv2d(3, 6, 1, bias=False),
            nn.BatchNorm2d(6),
            Sign(),
            BinaryConv2d(6, 9, (3, 2), (1, 2), (2, 1), padding_value=-1),
            Sign(),
            BinaryConv2d(9, 4, 3, 1, 2, dilation=2, padding_value=1),
            Sign(),
            BinaryConv2d(4, 8, (2, 1)),
            Sign(),
            BinaryConv2d(8, 4, 1, groups=2),
            Sign(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            QuantLinear(4, 2),
        )
    )
    signbit.calibrate(model, [x])
    return signbit.compile(model, x, verify=False).graph
