"""Every function, method and layer around the binary ones: compiled, and compared with PyTorch.

In float64 on both sides, then in the engine, for the example's image size and another one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import signbit
from signbit import nn as snn
from signbit.compiler import reference
from signbit.compiler.capture import capture
from signbit.compiler.ir import Graph, Type
from tests.compiler.build import check_in_float64


class Net(nn.Module):
    """A real-valued map of 8 channels, and layers that a function may use on it."""

    def __init__(self, function: Callable[[Net, Tensor], Tensor], layer: nn.Module | None = None):
        super().__init__()
        self.stem, self.bn = snn.QuantConv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.sign, self.rsign = snn.Sign(), snn.RSign(16)
        self.conv, self.wide = snn.BinaryConv2d(8, 8, 3, padding=1), snn.BinaryConv2d(16, 8, 1)
        self.q, self.gate = snn.QuantConv2d(8, 8, 1), snn.QuantConv2d(8, 8, 1)
        self.head = snn.QuantLinear(8, 5)
        self.slope, self.one = nn.Parameter(torch.rand(8)), nn.Parameter(torch.tensor([0.3]))
        self.gamma, self.order = (
            nn.Parameter(torch.randn(1, 8, 1, 1)),
            nn.Buffer(torch.arange(7, -1, -1)),
        )
        self.layer, self.function = layer, function
        for module in self.modules():
            if isinstance(module, snn.QuantLayer):
                module.set_input_range(-3, 3)
        nn.init.normal_(self.bn.weight)
        nn.init.normal_(self.bn.bias)
        nn.init.normal_(self.rsign.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, self.bn(self.stem(x)))


def compiled(function: Callable, layer: nn.Module | None = None, size: int = 8) -> Graph:
    """Compile, verify, run on another size; returns the graph."""
    torch.manual_seed(0)
    model, x = Net(function, layer).eval(), torch.randn(2, 3, size, size)
    program = signbit.compile(model, x)
    assert program.report.engine == "equal"
    y = torch.randn(3, 3, size + 4, size + 4)
    (want,) = reference.run(program.graph, y.numpy())
    with torch.no_grad():
        expected = model(y).numpy()
    assert want.shape == expected.shape
    np.testing.assert_allclose(want, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(program.session()(y.numpy()), want)
    return check_in_float64(model, x)


def shuffled(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    x = x.view(n, groups, c // groups, h, w)
    return x.transpose(1, 2).contiguous().view(n, -1, h, w)


def depth_to_space(x: Tensor) -> Tensor:
    n, c, h, w = x.size()
    x = x.reshape(n, c // 4, 2, 2, h, w)
    return x.permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)


ELEMENTWISE = {
    "relu": lambda m, x: F.relu(x),
    "method relu": lambda m, x: x.relu(),
    "relu6": lambda m, x: F.relu6(input=x),
    "sigmoid": lambda m, x: torch.sigmoid(x) + x.sigmoid(),
    "hardsigmoid": lambda m, x: F.hardsigmoid(x),
    "hardswish": lambda m, x: F.hardswish(x),
    "silu": lambda m, x: F.silu(x),
    "leaky_relu": lambda m, x: F.leaky_relu(x, 0.2),
    "hardtanh": lambda m, x: F.hardtanh(x, -0.1, 0.7),
    "clamp": lambda m, x: x.clamp(min=-0.3) + torch.clamp(x, -1, 1) + x.clamp_max(0.1),
    "prelu": lambda m, x: F.prelu(x, m.slope) + F.prelu(x, m.one),
    "dropout": lambda m, x: F.dropout(x, 0.5, m.training),
    "numbers": lambda m, x: -(2 * x - 1) / 3 + (1 - x) - 0.25,
    "channels": lambda m, x: x / x.shape[1] + x.size(1),
    "parameters": lambda m, x: m.gamma * x + m.slope.view(1, -1, 1, 1) - x / m.one,
    "sums and products": lambda m, x: (x - m.q(x)) * m.q(x) + x * x - (x + x),
}
POOLING = {
    "max_pool2d": lambda m, x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "dilated": lambda m, x: F.max_pool2d(x, 2, 1, dilation=2),
    "avg_pool2d": lambda m, x: F.avg_pool2d(x, 3, 2, 1, True, False),
    "padding counts": lambda m, x: F.avg_pool2d(x, (3, 2), stride=2, padding=1, ceil_mode=True),
    "adaptive": lambda m, x: F.adaptive_avg_pool2d(x, (3, 5)) + F.adaptive_max_pool2d(x, (3, 5)),
    "mean": lambda m, x: m.head(x.mean((2, 3))) + m.head(x.mean([-1, -2])),
    "mean over a row": lambda m, x: m.head(x.flatten(2).mean(-1)),
    "amax": lambda m, x: x * x.amax((2, 3), keepdim=True),
    "all of its size": lambda m, x: m.head(F.max_pool2d(x, x.shape[2:]).squeeze(3).squeeze(2)),
    "both its sides": lambda m, x: m.head(F.avg_pool2d(x, (x.size(2), x.size(3))).flatten(1)),
    "bits": lambda m, x: F.avg_pool2d(m.sign(x), 2) * m.sign(F.max_pool2d(x, 2)),
}
MOVEMENT = {
    "shuffle": lambda m, x: shuffled(x, 2),
    "channel_shuffle": lambda m, x: F.channel_shuffle(x, 4),
    "depth to space": lambda m, x: depth_to_space(x),
    "pixel_shuffle": lambda m, x: F.pixel_shuffle(x, 2),
    "reversed and shuffled": lambda m, x: F.pixel_shuffle(x.flip(1), 2),
    "join of a pixel shuffle": lambda m, x: torch.cat(
        [F.interpolate(x, scale_factor=2), F.pixel_shuffle(x, 2), depth_to_space(m.q(x))], 1
    ),
    "chunks": lambda m, x: torch.cat(x.chunk(2, 1)[::-1], dim=1),
    "split": lambda m, x: torch.cat([x.split([3, 5], 1)[1], m.q(x)], 1),
    "slices": lambda m, x: torch.cat([x[:, :2], F.relu(x[:, 2:]), x[:, ::2]], 1),
    "unbind and stack": lambda m, x: torch.stack(x.unbind(1)[::-1], 1),
    "interleaved": lambda m, x: torch.stack([x, m.q(x)], 2).flatten(1, 2),
    "index": lambda m, x: x[:, [1, 1, 7]] + x.index_select(1, m.order)[:, :3],
    "a gate": lambda m, x: x * torch.sigmoid(m.gate(x.mean((2, 3))[:, :, None, None])),
    "expanded": lambda m, x: x * torch.sigmoid(m.gate(x.mean((2, 3), True))).expand_as(x),
    "expanded twice": lambda m, x: (
        (x.mean((2, 3), True).expand_as(x) + x.amax((2, 3), True).expand_as(x)) * x
    ),
    "expanded and alone": lambda m, x: F.silu(x.mean((2, 3), True).expand_as(x)) + x,
    "expanded and joined": lambda m, x: torch.cat([x, x.mean((2, 3), True).expand_as(x)], 1),
    "expanded and returned": lambda m, x: x.mean((2, 3), True).flip(1).expand_as(x),
    "one channel": lambda m, x: x * torch.sigmoid(x[:, :1]) + x[:, 3:4],
    "bits and numbers": lambda m, x: m.q(torch.cat([m.sign(x), x], 1)[:, 4:12]),
    "nearest": lambda m, x: F.interpolate(x, scale_factor=2) + F.interpolate(x, None, (2, 2)),
    "bilinear": lambda m, x: F.interpolate(x, scale_factor=3, mode="bilinear"),
    "corners": lambda m, x: F.interpolate(x, (5, 7), mode="bilinear", align_corners=True),
    "like": lambda m, x: F.interpolate(F.max_pool2d(x, 2), x.shape[2:], mode="bilinear") + x,
    "like, by size()": lambda m, x: F.interpolate(m.q(F.avg_pool2d(x, 2)), size=x.size()[-2:]),
    "twice its size": lambda m, x: F.interpolate(x, (x.size(2) * 2, x.shape[3] * 2)),
    "bits of another size": lambda m, x: m.conv(F.interpolate(m.sign(x), scale_factor=2)),
}
LAYERS = [
    nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.MaxPool2d(2, dilation=2), nn.AvgPool2d(3, 2, 1),
    nn.AvgPool2d(3, ceil_mode=True, count_include_pad=False, padding=1), nn.AdaptiveAvgPool2d(3),
    nn.AdaptiveMaxPool2d((2, 3)), nn.Upsample(scale_factor=2),
    nn.Upsample((7, 5), mode="bilinear"), nn.UpsamplingNearest2d(scale_factor=2),
    nn.UpsamplingBilinear2d((9, 9)), nn.PixelShuffle(2), nn.ChannelShuffle(4), nn.Sigmoid(),
    nn.Hardsigmoid(), nn.Hardswish(), nn.SiLU(), nn.ReLU6(), nn.Hardtanh(-0.2, 0.4),
    nn.LeakyReLU(0.3), nn.Dropout3d(), nn.AlphaDropout(), nn.FeatureAlphaDropout(),
]  # fmt: skip


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_element_wise_calls(name: str) -> None:
    compiled(ELEMENTWISE[name])


@pytest.mark.parametrize("name", POOLING)
def test_pooling_calls(name: str) -> None:
    compiled(POOLING[name])


@pytest.mark.parametrize("name", MOVEMENT)
def test_calls_that_move_data(name: str) -> None:
    compiled(MOVEMENT[name])


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_layers(layer: nn.Module) -> None:
    compiled(lambda m, x: m.layer(x), layer)


def types(graph: Graph, op: str) -> list[Type]:
    """What every node of an operation gives."""
    return [node.outputs[0].type for node in graph.nodes if node.op == op]


def joined_twice(m: Net, x: Tensor) -> Tensor:
    return torch.cat([torch.cat([x[:, :4], m.q(x)], 1), x[:, 4:]], 1)


def enlarged(x: Tensor) -> Tensor:
    return F.pixel_shuffle(torch.cat([x] * 4, 1), 2)


BITS_MOVE = {
    "join": ("channels", lambda m, x: m.wide(m.rsign(torch.cat([x, m.q(x)], 1)))),
    "shuffle": ("channels", lambda m, x: m.conv(m.sign(shuffled(m.bn(x), 4)))),
    "join of a join": (
        "channels", lambda m, x: m.wide(m.rsign(joined_twice(m, x)))
    ),
    "pixel shuffle": (
        "pixel_shuffle", lambda m, x: m.conv(m.sign(F.relu6(enlarged(m.bn(x))) - 1))
    ),
    "nearest": ("resize", lambda m, x: m.conv(m.sign(m.bn(F.interpolate(x, scale_factor=2))))),
    "nearest, of a shuffle": (
        "resize", lambda m, x: m.conv(m.sign(F.interpolate(shuffled(x, 2), scale_factor=2)))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BITS_MOVE)
def test_signs_move_in_front_of_data_movement(name: str) -> None:
    op, function = BITS_MOVE[name]
    graph = compiled(function)
    assert types(graph, op) == [Type.B1]
    moved = [node for node in graph.nodes if node.op in ("channels", "resize", "pixel_shuffle")]
    assert all(node.outputs[0].type == Type.B1 for node in moved)
    kinds = [step.kind for node in graph.nodes for step in node.epilogue]
    assert "sign" not in kinds  # all are thresholds on integers


def test_a_channel_that_is_cut_twice_keeps_its_sign_behind() -> None:
    graph = compiled(lambda m, x: m.wide(m.rsign(torch.cat([x, x], 1))))
    assert types(graph, "channels") == [Type.F32]


def test_bilinear_resizing_keeps_its_sign_behind() -> None:
    up = nn.UpsamplingBilinear2d(scale_factor=2)
    graph = compiled(lambda m, x: m.conv(m.sign(m.layer(x))), up)
    assert types(graph, "resize") == [Type.F32]


def test_a_clip_before_a_sign_is_a_threshold() -> None:
    graph = compiled(lambda m, x: m.conv(m.sign(F.relu6(m.bn(m.conv(m.sign(x)))) - 3)))
    convs = [node for node in graph.nodes if node.op == "conv_b1"]
    assert [step.kind for step in convs[0].epilogue] == ["threshold"]


def test_a_gate_reads_its_map_once() -> None:
    graph = compiled(lambda m, x: F.hardswish(x))
    assert [s.kind for s in graph.nodes[-1].epilogue] == ["affine", "clip", "mul", "store"]
    assert [node.op for node in graph.nodes] == ["pointwise", "conv_q8", "pointwise"]


def test_moved_views_that_are_changed_in_place() -> None:
    def halves(m: Net, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        b = F.relu(b, inplace=True)
        return torch.cat([a, b], 1)

    def scaled(m: Net, x: Tensor) -> Tensor:
        y = x.view(x.shape)
        y *= 2
        x -= 1
        return x + y.contiguous()

    compiled(halves)
    compiled(scaled)

    def seen_through(m: Net, x: Tensor) -> Tensor:
        a = x[:, :4]
        a += 1
        return x

    with pytest.raises(signbit.CompileError, match=r"reads a view of .*, on which another layer"):
        signbit.compile(Net(seen_through), torch.randn(1, 3, 8, 8))


def cropped_to(like: Tensor, x: Tensor) -> Tensor:
    return x[:, :, : like.shape[2], : like.shape[3]]


@pytest.mark.parametrize(
    ("function", "size"),
    [
        (lambda m, x: x[:, :, :8, :8], 8),
        (lambda m, x: x.view(x.size(0), 8, 8, -1), 8),
        (lambda m, x: x[:, :, :32, :32], 8),
        (lambda m, x: F.interpolate(F.max_pool2d(x, 4)[:, :, :, :20], scale_factor=4), 8),
        (lambda m, x: x.narrow(3, 0, x.shape[3]).roll(24, 3), 8),
        (lambda m, x: x.roll(16, 3), 8),
        (lambda m, x: torch.cat(x.split(8, 2), 1), 8),
        (lambda m, x: torch.cat(x.chunk(2, 2), 1), 1),
        (lambda m, x: x[:, : x.shape[2]], 8),
        (lambda m, x: x[:1], 8),
        (lambda m, x: x * (x.shape[2] ** 0.5), 8),
        (lambda m, x: m.q(x.flatten(2).unflatten(2, (8, -1))), 8),
        (
            lambda m, x: cropped_to(
                x, F.interpolate(F.max_pool2d(x, 2, ceil_mode=True), scale_factor=2)
            ),
            8,
        ),
    ],
)
def test_what_is_nothing_for_the_example_only_is_refused(function: Callable, size: int) -> None:
    message = r"call \w+ does something else with images of another size"
    with pytest.raises(signbit.CompileError, match=message):
        signbit.compile(Net(function), torch.randn(1, 3, size, size))


def test_layers_that_move_pixels_are_looked_at_too() -> None:
    layer = nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (8, -1)))
    with pytest.raises(signbit.CompileError, match="does something else with images of another"):
        signbit.compile(Net(lambda m, x: m.layer(x), layer), torch.randn(1, 3, 8, 8))


def test_a_crop_to_the_size_of_what_was_enlarged() -> None:
    # nothing is cropped whatever the size: two maps of one size
    compiled(lambda m, x: cropped_to(x, m.q(x)) + x)


ON_CHANNELS = [
    lambda x: torch.cat(x.split([3, 5], 1), 1),
    lambda x: x.chunk(2, dim=1)[1],
    lambda x: torch.cat([x, x], dim=-3),
    lambda x: x.flip(1),
    lambda x: torch.flatten(x.mean((2, 3), True), 1),
    lambda x: x.roll(2, dims=1),
    lambda x: F.pixel_shuffle(x, 2),
    lambda x: x.narrow(1, 0, 4),
    lambda x: x[:, 2:6] + x[:, [1, 0, 3, 2]],
    lambda x: x.mean((2, 3), True).view(x.size(0), -1),
]


def test_calls_on_channels_need_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*args: object) -> None:
        raise AssertionError("it looks at other sizes")

    monkeypatch.setattr("signbit.compiler.capture._other_shapes", look)
    x = torch.randn(1, 3, 8, 8)
    for function in ON_CHANNELS:
        capture(Net(lambda m, x, function=function: function(x)), x)
    for function in (lambda m, x: x.flip(2).flip(2), lambda m, x: torch.cat(x.split(8, -1), 1)):
        with pytest.raises(AssertionError, match="looks at other sizes"):
            capture(Net(function), x)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.head(F.avg_pool2d(x, 8).view(-1, 8)),
        lambda m, x: torch.flatten(F.avg_pool2d(x, 8), 1),
    ],
)
def test_a_vector_is_refused_for_images_of_another_size(function: Callable) -> None:
    session = signbit.compile(Net(function).eval(), torch.randn(1, 3, 8, 8)).session()
    with pytest.raises(signbit.SignbitError, match="ends in a vector"):
        session(np.zeros((1, 3, 16, 16), np.float32))


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x * torch.sigmoid(m.gate(F.adaptive_avg_pool2d(x, 1))),
        lambda m, x: torch.sigmoid(m.gate(x.mean((2, 3), True))) * m.q(x),
        lambda m, x: m.q(x) * torch.sigmoid(m.gate(x.mean((2, 3), True))).expand_as(x),
        lambda m, x: x.amax((2, 3), True).expand_as(x) + x,
        lambda m, x: m.q(x) - F.interpolate(x.mean((2, 3), True), x.shape[2:]),
    ],
)
def test_a_gate_of_an_example_of_one_pixel(function: Callable) -> None:
    compiled(function, size=1)


SIDES = {
    "rows": lambda m, x: m.head(F.avg_pool2d(x, x.size(2)).view(x.size(0), -1)),
    "columns of a later map": lambda m, x: m.head(
        F.avg_pool2d(m.conv(m.sign(x)), x.size()[3]).flatten(1)
    ),
    "greatest": lambda m, x: m.head(F.max_pool2d(x, x.shape[-1]).flatten(1)),
    "a gate": lambda m, x: x * torch.sigmoid(m.gate(F.avg_pool2d(x, x.size(2)))),
}


@pytest.mark.parametrize("name", SIDES)
def test_a_window_of_one_side_runs_at_the_examples_size(name: str) -> None:
    model, x = Net(SIDES[name]).eval(), torch.randn(2, 3, 8, 8)
    session = signbit.compile(model, x).session()
    with torch.no_grad():
        np.testing.assert_allclose(session(x.numpy()), model(x), rtol=1e-4, atol=1e-4)
    for height, width in ((8, 9), (9, 9), (7, 8), (16, 8), (8, 16), (4, 4), (24, 24)):
        with pytest.raises(signbit.SignbitError):
            session(np.zeros((1, 3, height, width), np.float32))


@pytest.mark.parametrize(
    ("function", "size", "message"),
    [
        (lambda m, x: F.avg_pool2d(x, x.size(2)), (8, 8), "would hide that images of another size"),
        (
            lambda m, x: m.q(F.avg_pool2d(x, x.size(2))),
            (8, 8),
            "an output that is a map would hide",
        ),
        (SIDES["a gate"], (1, 1), "avg_pool2d makes a vector of a map whose size follows"),
        (SIDES["rows"], (8, 12), r"one side of a map of 8x12: use x\.shape\[2:\], or x\.mean"),
        (SIDES["rows"], (12, 8), r"one side of a map of 12x8|fails on the example"),
        (lambda m, x: F.max_pool2d(x, (x.size(3), x.size(2))), (8, 8), "width for its rows"),
        (lambda m, x: F.avg_pool2d(m.conv(m.sign(x)), (x.size(3), 8)), (8, 8), "window follows"),
    ],
)
def test_windows_that_follow_a_side_otherwise_are_refused(
    function: Callable, size: tuple[int, int], message: str
) -> None:
    with pytest.raises(signbit.CompileError, match=message):
        signbit.compile(Net(function), torch.randn(1, 3, *size))


def test_a_window_of_both_sides_is_all_of_the_map() -> None:
    for function in (POOLING["all of its size"], POOLING["both its sides"]):
        model, y = Net(function).eval(), torch.randn(2, 3, 5, 11)
        session = signbit.compile(model, torch.randn(1, 3, 8, 6)).session()
        with torch.no_grad():
            np.testing.assert_allclose(session(y.numpy()), model(y), rtol=1e-4, atol=1e-4)


def as_vector(m: Net, x: Tensor) -> Tensor:
    """[N, 5, 1, 1] of a map of 8x8, which images of other sizes do not have."""
    return m.layer(x.flatten(1))[:, :, None, None]


HIDDEN = {
    "returned": lambda m, x: as_vector(m, x),
    "pooled": lambda m, x: F.adaptive_avg_pool2d(as_vector(m, x), 1).flatten(1),
    "enlarged": lambda m, x: F.interpolate(F.relu(as_vector(m, x)), size=(8, 8)),
    "followed": lambda m, x: F.interpolate(x, size=as_vector(m, x).shape[2:]),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_vectors_whose_size_would_be_hidden_are_refused(name: str) -> None:
    layer = snn.QuantLinear(8 * 64, 5)
    layer.set_input_range(-3, 3)
    with pytest.raises(
        signbit.CompileError, match=r"layer makes a vector .*AdaptiveAvgPool2d\(1\)"
    ):
        signbit.compile(Net(HIDDEN[name], layer), torch.randn(1, 3, 8, 8))


def test_vectors_that_the_engine_checks_are_compiled() -> None:
    def gate(m: Net, x: Tensor) -> Tensor:
        return x * torch.sigmoid(m.layer(x.flatten(1))[:, :, None, None])

    def both(m: Net, x: Tensor) -> tuple[Tensor, Tensor]:
        y = as_vector(m, x)
        return y.flatten(1), y

    for function in (gate, both):
        layer = snn.QuantLinear(8 * 64, 8)
        layer.set_input_range(-3, 3)
        session = signbit.compile(Net(function, layer), torch.randn(1, 3, 8, 8)).session()
        for size in (7, 9, 16):
            with pytest.raises(signbit.SignbitError):
                session(np.zeros((1, 3, size, size), np.float32))


def test_summary_of_gates_and_moved_data() -> None:
    model = Net(lambda m, x: torch.cat([m.layer(x), F.interpolate(x, scale_factor=1)], 1) * 0.5)
    model.layer = nn.Hardswish()
    summary = signbit.summary(model, torch.randn(1, 3, 8, 8))
    assert summary.compiles
    rows = [(row.path, row.type, row.runs) for row in summary.rows[2:]]
    assert rows == [
        ("layer", "Hardswish", "pointwise"),
        ("interpolate", "interpolate", "data movement"),
        ("cat", "cat", "data movement"),
        ("mul", "mul", "pointwise"),
    ]
    assert all(not sum(row.count.params.values()) for row in summary.rows[2:])
