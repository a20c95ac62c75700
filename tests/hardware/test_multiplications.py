"""Multiplications against A&B BNN's published figures and against sums by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import signbit
from signbit import nn as snn
from signbit.compiler.capture import capture_leniently
from signbit.hardware import Count, count, count_layers
from signbit.models.ab_bnn import ScaledBranch

# of ReActNet-18 and Bi-Real-18 at 224x224, batch 1
OUTPUTS = 4 * (64 * 56**2 + 128 * 28**2 + 256 * 14**2 + 512 * 7**2)  # of the 3x3 convolutions
POOLED = 64 * 28**2 + 128 * 14**2 + 256 * 7**2  # in front of the 1x1 downsampling
DOWNSAMPLED = 64 * 128 * 28**2 + 128 * 256 * 14**2 + 256 * 512 * 7**2  # its MACs
STEM, CLASSIFIER = 3 * 64 * 49 * 112**2, 512 * 1000


def counted(name: str, variant: str | None = None) -> Count:
    model = signbit.create_model(name, **({} if variant is None else {"variant": variant}))
    return count(capture_leniently(model, torch.zeros(1, 3, 224, 224)).graph)


@pytest.mark.parametrize(
    ("name", "variant", "exact", "published"),
    [
        ("ab_reactnet18", "normalizer_free", 3 * OUTPUTS + POOLED, "4.60"),
        ("ab_reactnet_a", "normalizer_free", 4_992_512 + 2 * 4_641_280 + 376_320, "14.65"),
        ("ab_reactnet18", "batch_norm", 2 * OUTPUTS + DOWNSAMPLED + POOLED, "22.37"),
        ("ab_birealnet18", "batch_norm", OUTPUTS + DOWNSAMPLED + POOLED, "20.86"),
        ("ab_reactnet18", "ab", 0, "0.00"),
        ("ab_reactnet34", "ab", 0, "0.00"),
        ("ab_reactnet_a", "ab", 0, "0.00"),
        ("ab_xnornet18", "ab", 0, "0.00"),
        # not published of this network: it is the published ReActNet-18 with 8-bit layers
        ("reactnet18", None, 2 * OUTPUTS + DOWNSAMPLED + POOLED, "22.37"),
    ],
)
def test_published_figures(name: str, variant: str | None, exact: int, published: str) -> None:
    found = counted(name, variant)
    assert found.mo == exact
    assert f"{found.mo / 1e6:.2f}" == published


@pytest.mark.parametrize(
    ("name", "variant", "ours"),
    [
        # published as 0, but its 1x1 downsampling is real
        ("ab_birealnet18", "ab", DOWNSAMPLED),
        # published as 10.79M and 22.20M
        ("ab_reactnet_a", "batch_norm", 9_658_880),
        ("ab_birealnet34", "batch_norm", 22_115_072),
    ],
)
def test_published_figures_that_the_networks_do_not_give(
    name: str, variant: str, ours: int
) -> None:
    assert counted(name, variant).mo == ours


def test_strict_count_of_reactnet18() -> None:
    inputs = OUTPUTS + POOLED * 2  # of the 3x3 convolutions: stages two to four start larger
    scales = OUTPUTS + 128 * 28**2 + 256 * 14**2 + 512 * 7**2
    always = {"macs": STEM + CLASSIFIER, "weight_scales": scales, "averages": 512}
    found = counted("ab_reactnet18")
    assert found.multiplications == always
    assert found.strict_mo == STEM + CLASSIFIER + scales + 512
    assert found.additions == DOWNSAMPLED
    assert found.flops == STEM + CLASSIFIER + DOWNSAMPLED
    assert found.ace == found.bops + 1024 * (STEM + CLASSIFIER) + 32 * DOWNSAMPLED
    others = {"sign_factors": inputs, "factors": OUTPUTS, "slopes": OUTPUTS}
    assert counted("ab_reactnet18", "normalizer_free").multiplications == always | others


def test_scales_that_are_powers_of_two_are_shifts() -> None:
    model = signbit.create_model("ab_reactnet18", stem="cifar", scale="power_of_two", width=0.25)
    found = count(capture_leniently(model, torch.zeros(1, 3, 32, 32)).graph)
    assert found.multiplications.keys() == {"macs"}  # 4x4 pixels are averaged by a shift


def terms(model: nn.Module, size: int = 8) -> dict[str, Count]:
    return dict(count_layers(capture_leniently(model, torch.zeros(1, 4, size, size)).graph))


def test_every_kind_by_hand() -> None:
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = snn.QuantConv2d(4, 8, 1)
            self.sign = snn.NormalizedSign(8, 0.5, "approx_sign")
            self.branch = ScaledBranch(snn.BinaryConv2d(8, 8, 1), 0.3)
            self.bn = nn.BatchNorm2d(8)
            self.leaky = nn.LeakyReLU(0.01)
            self.pool = nn.AvgPool2d(2)
            self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
            self.last = nn.Sequential(snn.Sign(), snn.BinaryConv2d(8, 8, 1), nn.PReLU(8))
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))

        def forward(self, x: Tensor) -> Tensor:
            x = self.leaky(self.bn(self.branch(self.sign(self.stem(x)))))
            x = self.pool(x)
            return self.head(self.last(self.gate(x) * x))

    found = terms(Network(), 6)
    strict = {path: each.multiplications for path, each in found.items() if each.multiplications}
    assert strict == {
        "stem": {"macs": 8 * 4 * 36, "weight_scales": 8 * 36, "quantization": 4 * 36},
        "sign": {"sign_factors": 8 * 36},
        "branch.conv": {"weight_scales": 8 * 36},
        "branch.mul": {"factors": 8 * 36},
        "bn": {"batch_norm": 8 * 36},
        "leaky": {"slopes": 8 * 36},
        "gate.0": {"averages": 8},
        "gate.1": {"macs": 64},
        "mul": {"products": 8 * 9},
        "last.1": {"weight_scales": 8 * 9},
        "last.2": {"slopes": 8 * 9},
        "head.0": {"averages": 8},
        "head.2": {"macs": 16},
    }
    mo = {path: each.mo for path, each in found.items() if each.mo}
    assert mo == {
        "sign": 8 * 36, "branch.mul": 8 * 36, "bn": 8 * 36, "leaky": 8 * 36, "pool": 8 * 9,
        "gate.0": 8, "gate.1": 64, "mul": 8 * 9,
    }  # fmt: skip


def test_powers_of_two_are_free_without_batch_norm() -> None:
    def network(*layers: nn.Module) -> nn.Module:
        tail = (snn.Sign(), snn.BinaryConv2d(4, 4, 1))
        return nn.Sequential(snn.Sign(), snn.BinaryConv2d(4, 4, 1), *layers, *tail)

    shifting = (snn.QRPReLU(4), snn.RLeakyReLU(4, 2**-7), nn.LeakyReLU(0.5), nn.AvgPool2d(2))
    assert sum(each.mo for each in terms(network(*shifting)).values()) == 0
    found = terms(network(nn.BatchNorm2d(4), *shifting))
    assert [found[str(index)].mo for index in range(2, 7)] == [256, 256, 256, 256, 64]
    assert not any(found[str(index)].multiplications for index in range(3, 7))
    # learned slopes are real numbers, wherever they start
    assert terms(network(snn.RPReLU(4)))["2"].mo == 256
    assert terms(network(snn.RLeakyReLU(4, 0.3)))["2"].mo == 256


def test_networks_without_signs_have_no_stem() -> None:
    found = terms(nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2), nn.ReLU()))
    assert [each.mo for each in found.values()] == [4 * 2 * 64, 0, 0]
    assert found["1"].multiplications == {"batch_norm": 128}


def test_dict_has_them() -> None:
    found = Count(mo=3, multiplications={"macs": 4, "slopes": 5}, additions=2).to_dict()
    assert (found["mo"], found["strict_mo"], found["additions"]) == (3, 9, 2)
    assert found["multiplications"] == {"macs": 4, "slopes": 5}
