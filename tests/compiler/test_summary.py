"""Summaries of models that compile, that lack calibration, and that the compiler refuses."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

import signbit
from signbit import nn as snn


def by_path(summary) -> dict:
    return {row.path: row for row in summary.rows}


def test_bits_network_that_compiles() -> None:
    model = signbit.create_model("bineal18", num_classes=10, stem="cifar", width=0.25)
    x = torch.randn(1, 3, 32, 32)
    signbit.calibrate(model, [x])
    summary = signbit.summary(model, x)
    assert summary.compiles
    rows = by_path(summary)
    assert rows["stem.0"].runs == "8-bit"
    assert rows["stem.0"].memory == 3 * 32 * 32  # the image in 8 bits
    conv, bn, sign = (rows[f"stages.0.0.{name}"] for name in ("conv1", "bn1", "sign1"))
    assert (conv.runs, bn.runs, sign.runs) == ("binary", "fused", "fused")
    assert (conv.memory, bn.memory, sign.memory) == (0, 0, 16 * 32 * 32 / 8)
    assert rows["stages.0.0.add"].memory == 16 * 32 * 32 / 2  # one operand in 4 bits
    assert conv.shape == (16, 32, 32)
    assert conv.count.params == {1: 16 * 16 * 9, 4: 0, 8: 0, 32: 0}
    assert summary.total.bops == sum(row.count.bops for row in summary.rows)
    assert "The compiler refuses" not in str(summary)


def test_uncalibrated_network_says_so_and_is_counted() -> None:
    model = signbit.create_model("reactnet18", num_classes=10, stem="cifar", width=0.25)
    summary = signbit.summary(model, torch.randn(1, 3, 32, 32))
    assert not summary.compiles
    waiting = [row.path for row in summary.rows if row.runs == "8-bit, calibrate first"]
    assert waiting == [
        "stem.0", "stages.1.0.shortcut.1", "stages.2.0.shortcut.1", "stages.3.0.shortcut.1", "head",
    ]  # fmt: skip
    assert "signbit.calibrate" in by_path(summary)["stem.0"].reasons[0]
    text = str(summary)
    assert "refuse" not in text
    assert text.count("Note: 5 8-bit layers do not know") == 1
    # still with the memory of the program that it will be
    assert by_path(summary)["stages.0.1.sign"].memory == 16 * 32 * 32 / 8


def test_refused_network() -> None:
    model = signbit.create_model("resnet18", num_classes=10, stem="cifar", width=0.25)
    summary = signbit.summary(model, torch.randn(1, 3, 32, 32))
    rows = by_path(summary)
    assert rows["stem.0.0"].runs == "refused"
    assert "signbit.nn.QuantConv2d" in rows["stem.0.0"].reasons[0]
    assert summary.total.bops == 0
    assert summary.total.macs[32] > 0
    text = str(summary)
    assert "The compiler refuses:" in text
    assert "head (Linear): " in text


def test_uncalibrated_and_refused_is_refused() -> None:
    model = nn.Sequential(snn.QuantLinear(4, 4), snn.QuantConv2d(4, 8, 1))
    summary = signbit.summary(model, torch.randn(1, 4, 4, 4))
    assert [row.runs for row in summary.rows] == ["refused", "8-bit, calibrate first"]
    assert "torch.nn.Flatten before it" in str(summary)


def test_network_that_fails_in_lowering_names_the_layer() -> None:
    model = nn.Sequential(snn.Sign(), snn.BinaryConv2d(3, 4, 1), snn.Sign(), nn.Flatten())
    model.append(nn.BatchNorm1d(64))
    summary = signbit.summary(model, torch.randn(1, 3, 4, 4))
    runs = ["fused", "binary", "fused", "nothing to do", "refused"]
    assert [row.runs for row in summary.rows] == runs
    assert "reads a flattened map" in summary.rows[4].reasons[0]


def test_network_that_cannot_be_traced_or_run() -> None:
    class Odd(nn.Module):
        def __init__(self, channels: int):
            super().__init__()
            self.conv, self.other = snn.QuantConv2d(3, 4, 1), snn.QuantConv2d(channels, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.other(x if x.sum() > 0 else -x)

    summary = signbit.summary(Odd(4), torch.ones(1, 3, 4, 4))
    assert [row.path for row in summary.rows] == ["conv", "other"]
    assert "cannot be traced" in summary.problems[0]
    summary = signbit.summary(Odd(5), torch.ones(1, 3, 4, 4))
    assert [row.path for row in summary.rows] == ["conv"]
    assert any("fails on the example" in problem for problem in summary.problems)
    failing = nn.Sequential(snn.Sign(), snn.BinaryConv2d(7, 4, 1))
    summary = signbit.summary(failing, torch.ones(1, 3, 4, 4))
    assert [row.path for row in summary.rows] == ["0"]
    assert "fails on the example" in str(summary)


def test_alone_and_pooling() -> None:
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.bn = nn.AvgPool2d(2), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.bn(self.pool(x))

    rows = by_path(signbit.summary(Shared(), torch.randn(1, 3, 4, 4)))
    assert (rows["pool"].runs, rows["bn"].runs) == ("pooling", "pointwise")


def test_text_and_json() -> None:
    model = nn.Sequential(snn.Sign(), snn.BinaryConv2d(3, 4, 3, padding=1))
    summary = signbit.summary(model, torch.randn(1, 3, 4, 4))
    lines = str(summary).splitlines()
    assert [lines[0].split()[0], lines[2].split()[0], lines[3].split()[1]] == [
        "layer", "0", "BinaryConv2d",
    ]  # fmt: skip
    columns = lines[0].index("BOPs") + 4, lines[0].index("FLOPs") + 5
    for line in (lines[3], lines[5]):  # the convolution, and the total
        assert [line[:end].split()[-1] for end in columns] == ["1.73k", "0"]
    found = json.loads(json.dumps(summary.to_dict()))
    assert found["total"]["bops"] == 1728
    assert found["rows"][1]["params"] == {"1-bit": 108, "4-bit": 0, "8-bit": 0, "32-bit": 4}
    assert found["total"]["memory"] == 4 * 16 * 4 + 3 * 16 / 8
    assert found["compiles"] is True


def test_layers_of_four_bits_have_columns_of_their_own() -> None:
    layers = [snn.QuantConv2d(3, 4, 1, bits=4), snn.QuantConv2d(4, 4, 1)]
    x = torch.randn(1, 3, 4, 4)
    header = str(signbit.summary(nn.Sequential(layers[1]), torch.randn(1, 4, 4, 4))).split("\n")[0]
    assert "4-bit" not in header
    waiting = signbit.summary(nn.Sequential(*layers), x)
    assert [row.runs for row in waiting.rows] == [
        "4-bit, calibrate first",
        "8-bit, calibrate first",
    ]
    assert "Note: 2 quantised layers do not know" in str(waiting)
    assert "Note: 1 4-bit layer does not know" in str(signbit.summary(nn.Sequential(layers[0]), x))
    model = signbit.calibrate(nn.Sequential(*layers), [x])
    summary = signbit.summary(model, x)
    assert [row.runs for row in summary.rows] == ["4-bit", "8-bit"]
    lines = str(summary).splitlines()
    assert lines[0].split()[3:15] == [
        "params", "1-bit", "4-bit", "8-bit", "32-bit", "MACs", "1-bit", "4-bit", "8-bit", "32-bit",
        "BOPs", "FLOPs",
    ]  # fmt: skip
    ends = [lines[0].index(name) + len(name) for name in ("1-bit", "4-bit", "8-bit", "32-bit")]
    (footer,) = [line for line in lines if line.startswith("total")]
    assert [footer[:end].split()[-1] for end in ends] == ["0", "12", "16", "16"]
    assert summary.total.weight_bytes == 12 / 2 + 16 + 4 * 16
    assert summary.to_dict()["total"]["macs"]["4-bit"] == 12 * 16


def test_multiplications_are_summed_with_the_steps_of_a_layer() -> None:
    model = nn.Sequential(snn.Sign(), snn.BinaryConv2d(4, 4, 1), nn.Hardswish(), snn.Sign())
    summary = signbit.summary(model, torch.randn(1, 4, 4, 4))
    row = by_path(summary)["2"]
    assert row.count.multiplications == {"factors": 64, "products": 64}  # 1/6, and x times its gate
    assert row.count.mo == 128
    assert summary.to_dict()["total"]["mo"] == 128
    assert "multiplications 128 between stem and head (MO, A&B BNN's convention); 192 in all: " in (
        str(summary)
    )


def test_network_without_multiplications_between_stem_and_head() -> None:
    model = signbit.create_model("ab_reactnet18", num_classes=10, stem="cifar", width=0.25)
    summary = signbit.summary(model, torch.randn(1, 3, 32, 32))
    assert summary.total.mo == 0
    downsampling = [row for row in summary.rows if row.count.additions]
    assert [row.path for row in downsampling] == [f"stages.{i}.0.shortcut.1" for i in (1, 2, 3)]
    assert "multiplications 0 between stem and head" in str(summary)
