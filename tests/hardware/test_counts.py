"""Counts against the field's figures for ReActNet-18 and against sums by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import signbit
from signbit import nn as snn
from signbit.compiler.capture import capture_leniently
from signbit.hardware import Count, count, count_layers


def test_reactnet18_at_224() -> None:
    model = signbit.create_model("reactnet18", num_classes=1000)
    graph = capture_leniently(model, torch.zeros(1, 3, 224, 224)).graph
    found = count(graph)
    macs = {path: each.macs for path, each in count_layers(graph)}
    assert found.bops == pytest.approx(1.676e9, rel=1e-3)
    assert macs["stem.0"][8] == pytest.approx(118.0e6, rel=1e-3)
    down = sum(each[8] for path, each in macs.items() if "shortcut" in path)
    assert down == pytest.approx(19.27e6, rel=1e-3)
    assert macs["head"][8] == 512_000
    assert found.flops == pytest.approx(137.8e6, rel=1e-3)
    assert found.ops == pytest.approx(164.0e6, rel=1e-3)
    assert found.cpu64 == found.bops / 64 + found.flops / 8
    assert found.ace == found.bops + 64 * found.flops


def test_small_network_by_hand() -> None:
    model = nn.Sequential(
        snn.QuantConv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        snn.RSign(8),
        snn.BinaryConv2d(8, 16, 3, stride=2, padding=1, groups=2),
        nn.PReLU(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 16, 10),
    )
    found = count(capture_leniently(model, torch.zeros(2, 3, 8, 8)).graph)
    assert found.macs == {1: 16 * 4 * 9 * 16, 4: 0, 8: 8 * 27 * 64, 32: 2560}
    # 8-bit: bias and scale; batch norm: two; RSign; scale of the binary weights; PReLU; Linear
    assert found.params == {1: 576, 4: 0, 8: 216, 32: 16 + 16 + 8 + 16 + 16 + 2570}
    assert found.weight_bytes == 576 / 8 + 216 + 4 * 2642
    assert found.ace == 9216 + 64 * 13824 + 1024 * 2560


def test_layers_of_four_bits_by_hand() -> None:
    """PokeBNN's conventions: a 4-bit MAC is a sixteenth of a real one on a CPU, and 16 ACE."""
    model = nn.Sequential(
        snn.QuantConv2d(3, 8, 3, padding=1, bias=False, bits=4),
        nn.ReLU(),
        nn.Flatten(),
        snn.QuantLinear(8 * 16, 10, bits=4),
        snn.QuantLinear(10, 5),
    )
    found = count(capture_leniently(model, torch.zeros(2, 3, 4, 4)).graph)
    stem, head = 8 * 27 * 16, 128 * 10
    assert found.macs == {1: 0, 4: stem + head, 8: 50, 32: 0}
    assert found.params == {1: 0, 4: 216 + 1280, 8: 50, 32: 8 + 10 + 10 + 5 + 5}
    assert found.weight_bytes == (216 + 1280) / 2 + 50 + 4 * 38
    assert found.flops == found.ops == stem + head + 50
    assert found.cpu64 == (stem + head) / 16 + 50 / 8
    assert found.ace == 16 * (stem + head) + 64 * 50
    in_eight = nn.Sequential(*(layer for layer in model))
    in_eight[0] = snn.QuantConv2d(3, 8, 3, padding=1, bias=False)
    in_eight[3] = snn.QuantLinear(8 * 16, 10)
    other = count(capture_leniently(in_eight, torch.zeros(2, 3, 4, 4)).graph)
    assert (found.mo, found.multiplications) == (other.mo, other.multiplications)


def test_plain_signs_have_no_scale_and_shared_layers_count_once() -> None:
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.sign = snn.Sign()
            self.conv = snn.BinaryConv2d(4, 4, 1, weight_quantizer="sign")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.sign(self.conv(self.sign(x))))

    found = count(capture_leniently(Twice(), torch.zeros(1, 4, 3, 3)).graph)
    assert found.params == {1: 16, 4: 0, 8: 0, 32: 0}
    assert found.macs[1] == 2 * 16 * 9


def test_dict_names_the_precisions() -> None:
    found = Count({1: 64, 8: 8, 32: 1}, {1: 8, 8: 1, 32: 1}).to_dict()
    assert found["macs"] == {"1-bit": 64, "8-bit": 8, "32-bit": 1}
    assert (found["ops"], found["cpu64"], found["weight_bytes"]) == (10, 3, 6)
