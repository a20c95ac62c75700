"""Small random networks that mix all layers, functions and ways of moving data.

Each is checked three times: against PyTorch in float64, the engine against the reference bit for
bit, and the file against the graph that it was written from; all of that on other image sizes too.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import signbit
from signbit import nn as snn
from signbit.compiler import read_graph, reference
from signbit.compiler.emit import emit
from signbit.compiler.ir import Graph
from tests.compiler.build import check_in_float64

SIZE = 8
OTHERS = [(SIZE + 1, SIZE + 5), (2 * SIZE, 2 * SIZE + 2), (4 * SIZE, 4 * SIZE + 1)]


def batch_norm(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels)
    for tensor in (layer.weight, layer.bias, layer.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(layer.running_var, 0.5, 4)
    return layer


def quantised(layer: snn.QuantLayer) -> snn.QuantLayer:
    layer.set_input_range(-2, 3)
    return layer


def slopes(channels: int) -> nn.PReLU:
    layer = nn.PReLU(channels)
    nn.init.normal_(layer.weight, 0.3, 0.3)
    return layer


def thresholds(channels: int) -> snn.RSign:
    layer = snn.RSign(channels)
    nn.init.normal_(layer.bias)
    return layer


def shuffled(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


# The odd numbers below keep sums of integers from cancelling to nothing: a sign of what is 0 but
# for its rounding says nothing.
Step = Callable[[Tensor], Tensor]
# (channels, draw) -> a step on a map of that many channels
LAYERS: list[Callable[[int, random.Random], Step]] = [
    lambda c, r: nn.Sequential(
        thresholds(c), snn.BinaryConv2d(c, r.choice([3, 4, 8]), 3, r.choice([1, 2]), 1),
    ),
    lambda c, r: nn.Sequential(
        snn.Sign(), snn.BinaryConv2d(c, 4, 3, padding=1, padding_value=r.choice([-1, 1]))
    ),
    lambda c, r: nn.Sequential(
        snn.Sign(), nn.MaxPool2d(3, 1, 1), snn.BinaryConv2d(c, 6, 1), batch_norm(6), snn.RPReLU(6)
    ),
    lambda c, r: quantised(
        snn.QuantConv2d(c, r.choice([2, 5, 8]), r.choice([1, 3]), padding=1, bits=r.choice([4, 8]))
    ),
    lambda c, r: batch_norm(c),
    lambda c, r: slopes(c),
    lambda c, r: nn.Sequential(snn.Sign(), batch_norm(c)),
    lambda c, r: nn.Sequential(snn.Sign(), nn.AvgPool2d(3, 1, 1)),
    lambda c, r: nn.MaxPool2d(r.choice([2, 3]), r.choice([1, 2]), 1, ceil_mode=r.random() < 0.5),
    lambda c, r: nn.AvgPool2d(3, r.choice([1, 2]), r.choice([0, 1]), ceil_mode=r.random() < 0.5),
    lambda c, r: nn.AdaptiveMaxPool2d((r.randint(1, 5), r.randint(1, 5))),
    lambda c, r: nn.Upsample(scale_factor=2),
    lambda c, r: lambda x: F.interpolate(x, scale_factor=2, mode="bilinear") + 0.0317,
    lambda c, r: r.choice([nn.Hardswish(), nn.SiLU(), nn.ReLU6(), nn.Hardsigmoid(), nn.ReLU()]),
    lambda c, r: lambda x: F.relu6(x * 0.7 + 0.3) - 1,
    lambda c, r: lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    lambda c, r: lambda x: x * torch.sigmoid(x[:, :1]),
    lambda c, r: lambda x: x.flip(1),
    lambda c, r: lambda x: torch.cat(x.split([1, c - 1], 1)[::-1], 1),
    lambda c, r: lambda x: shuffled(x, 2) if c % 2 == 0 else x[:, ::2],
    lambda c, r: lambda x: F.pixel_shuffle(x, 2) if c % 4 == 0 else F.hardtanh(x, -0.5, 0.5),
]  # fmt: skip
# two maps of one shape
JOINTS: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda a, b: a + b,
    lambda a, b: 1.3 * a - b,
    lambda a, b: a * b,
    lambda a, b: torch.cat([a, b], 1),
    lambda a, b: torch.stack([b, a], 2).flatten(1, 2),
]


class Random(nn.Module):
    """A network drawn from a seed; what joins maps is drawn so that it works for all even sizes."""

    def __init__(self, seed: int, steps: int = 6):
        super().__init__()
        draw = random.Random(seed)
        torch.manual_seed(seed)
        self.stem = nn.Sequential(quantised(snn.QuantConv2d(3, 4, 3, padding=1)), batch_norm(4))
        self.layers = nn.ModuleList()
        self.plan: list[tuple[Callable, tuple[int, ...]]] = []
        self.eval()
        sizes = [torch.zeros(1, 3, size, size + 2) for size in (SIZE, 2 * SIZE)]
        with torch.no_grad():
            maps = [[self.stem(x)] for x in sizes]  # of each size: all maps so far
            for _ in range(steps):
                at = draw.choice([len(maps[0]) - 1, draw.randrange(len(maps[0]))])
                x = maps[0][at]
                step = draw.choice(LAYERS)(x.shape[1], draw)
                if x.shape[1] == 1 or x.shape[1] > 16 or min(x.shape[2:]) < 3 or x.shape[2] > 16:
                    step = quantised(snn.QuantConv2d(x.shape[1], 4, 1))
                self._add(step, (at,), maps)
                self._join(draw, maps)

    def _add(self, step: Callable, sources: tuple[int, ...], maps: list[list[Tensor]]) -> None:
        if isinstance(step, nn.Module):
            self.layers.append(step.eval())
        self.plan.append((step, sources))
        for known in maps:
            known.append(step(*(known[at] for at in sources)))

    def _join(self, draw: random.Random, maps: list[list[Tensor]]) -> None:
        """Join the last map with one that has its shape whatever the image's size, or resize."""
        last = len(maps[0]) - 1
        same = [
            at for at in range(last)
            if all(known[at].shape == known[last].shape for known in maps)
        ]  # fmt: skip
        if same and draw.random() < 0.7:
            self._add(draw.choice(JOINTS), (draw.choice(same), last), maps)
        elif draw.random() < 0.3:
            mode = draw.choice(["nearest", "bilinear"])

            def like(a: Tensor, b: Tensor) -> Tensor:
                return F.interpolate(a, b.shape[2:], mode=mode) + 0.0317

            self._add(like, (last, draw.randrange(last)), maps)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = [self.stem(x)]
        for step, sources in self.plan:
            maps.append(step(*(maps[at] for at in sources)))
        # a real-valued end that no later layer reads
        return maps[-1] * 2, maps[len(maps) // 2] + 1


def check(seed: int) -> None:
    model, x = Random(seed), torch.randn(2, 3, SIZE, SIZE + 2)
    program = signbit.compile(model, x, verify=False)
    read = read_graph(emit(program.graph))
    assert emit(read_graph(emit(read))) == emit(read)
    session = program.session()
    others = [torch.randn(1, 3, *size) for size in OTHERS]
    others = [other for other in others if takes(model, other)]
    for other in others:
        outputs = reference.run(program.graph, other.numpy())
        found = session(other.numpy())
        same = reference.run(read, other.numpy())
        for want, again, got in zip(outputs, same, found, strict=True):
            np.testing.assert_array_equal(want, again)
            np.testing.assert_array_equal(want, got)
    assume(not has_ties(model, x))
    graph = check_in_float64(model, x)
    for other in others:
        if not has_ties(model, other):
            check_other_size(model, graph, other.double())


def takes(model: nn.Module, x: Tensor) -> bool:
    """Whether the model itself runs on images of that size: what it joins may not fit there."""
    try:
        model(x)
    except RuntimeError:
        return False
    return True


def check_other_size(model: nn.Module, graph: Graph, x: Tensor) -> None:
    """The float64 lowering is the model for images of another size than the example's."""
    with torch.no_grad():
        expected = model(x)
    found = reference.run(graph, x.numpy(), precision=np.float64)
    for want, got in zip(expected, found, strict=True):
        assert got.shape == tuple(want.shape)
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-9, atol=1e-9)


def has_ties(model: nn.Module, x: Tensor) -> bool:
    """Whether a sign reads a number that would be 0 without rounding."""
    least = []

    def note(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        bias = layer.bias.view(1, -1, 1, 1) if isinstance(layer, snn.RSign) else 0
        distance = (inputs[0] + bias).abs()
        least.extend(distance[distance > 0].tolist())

    model, x = model.double(), x.double()
    signs = [m for m in model.modules() if isinstance(m, snn.Sign | snn.RSign)]
    hooks = [layer.register_forward_hook(note) for layer in signs]
    model(x)
    for hook in hooks:
        hook.remove()
    return min(least, default=1) < 1e-9


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32 - 1))
def test_random_networks(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32 - 1))
def test_many_random_networks(seed: int) -> None:
    check(seed)
