"""Convolutions in groups of any size, depthwise ones too: compiled, verified, and run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import signbit
from signbit import nn as snn
from signbit.compiler import reference
from signbit.runtime import instruction_sets

from .networks import make_awkward


def block(channels: int, out: int, groups: int, binary: bool, **window: object) -> list[nn.Module]:
    if binary:
        layers = [snn.RSign(channels), snn.BinaryConv2d(channels, out, 3, groups=groups, **window)]
    else:
        layers = [snn.QuantConv2d(channels, out, 3, groups=groups, **window)]
    return [*layers, nn.BatchNorm2d(out), snn.RPReLU(out)]


NETWORKS = {
    "depthwise": [(7, 7, 7, True, {"padding": 1}), (7, 7, 7, False, {"padding": 1, "stride": 2})],
    "multiplier": [(7, 21, 7, True, {"padding": 1, "stride": 2}), (21, 42, 21, False, {})],
    "odd": [(7, 15, 1, True, {}), (15, 9, 3, True, {"padding_value": 1, "padding": 2})],
    "odd 8-bit": [(7, 15, 1, True, {}), (15, 9, 3, False, {"padding": 2, "dilation": 2})],
    "straddling": [(7, 30, 1, True, {}), (30, 10, 5, True, {"padding": 1}), (10, 6, 2, False, {})],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_of_any_size(name: str) -> None:
    torch.manual_seed(3)
    layers = [snn.QuantConv2d(3, 7, 3, padding=1), nn.BatchNorm2d(7)]
    for channels, out, groups, binary, window in NETWORKS[name]:
        layers += block(channels, out, groups, binary, **window)
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    make_awkward(model, 5)
    x = torch.randn(3, 3, 17, 13)
    signbit.calibrate(model, [x])
    compiled = signbit.compile(model, x)  # verifies
    expected = reference.run(compiled.graph, x.numpy())[0]
    for isa in instruction_sets():
        for threads in (1, 2):
            found = compiled.session(threads=threads, isa=isa)(x.numpy())
            np.testing.assert_array_equal(found, expected, f"{isa}, {threads} threads")
