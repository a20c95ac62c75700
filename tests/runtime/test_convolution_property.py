"""Convolutions drawn at random: the engine, the reference and a naive convolution agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from signbit import runtime
from signbit.compiler import emit, reference
from signbit.compiler.ir import Graph, Node, Step, Type, Value, conv_output_size
from signbit.compiler.passes.check import check

AXES = ("h", "w")


@dataclass(frozen=True)
class Case:
    """A convolution, what runs it, and the seed of its operands. Pairs are (height, width)."""

    binary: bool
    groups: int
    group_inputs: int
    group_outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    dilation: tuple[int, int]
    outside: int
    image: tuple[int, int]
    batch: int
    threads: int
    to_bits: bool
    seed: int

    @property
    def inputs(self) -> int:
        return self.groups * self.group_inputs

    @property
    def outputs(self) -> int:
        return self.groups * self.group_outputs

    @property
    def size(self) -> tuple[int, int]:
        axes = zip(self.image, self.kernel, self.stride, self.pad, self.dilation, strict=True)
        return tuple(conv_output_size(*axis) for axis in axes)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    def number(low: int, high: int) -> int:
        return draw(st.integers(low, high))

    def pair(low: int, high: int) -> tuple[int, int]:
        return number(low, high), number(low, high)

    binary = draw(st.booleans())
    kernel, dilation = pair(1, 5), pair(1, 3)
    pad = tuple(number(0, 2 * k + 1) for k in kernel)
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    image = tuple(max(1, span - 2 * p) + number(0, 12) for span, p in zip(spans, pad, strict=True))
    return Case(
        binary=binary,
        groups=number(1, 6),
        group_inputs=number(1, 14),
        group_outputs=number(1, 11),
        kernel=kernel,
        stride=pair(1, 6),
        pad=pad,
        dilation=dilation,
        outside=number(-1, 1) if binary else 0,
        image=image,
        batch=number(1, 3),
        threads=number(1, 3),
        to_bits=draw(st.booleans()),
        seed=number(0, 2**32 - 1),
    )


def naive(x: np.ndarray, weight: np.ndarray, case: Case) -> np.ndarray:
    """Convolve x [N, I, H, W] with weight [O, I/g, KH, KW], both int64, one output at a time."""
    edges = [(0, 0), (0, 0), *((p, p) for p in case.pad)]
    x = np.pad(x, edges, constant_values=case.outside)
    height, width = case.size
    span_h, span_w = (d * (k - 1) + 1 for d, k in zip(case.dilation, case.kernel, strict=True))
    y = np.empty((len(x), case.outputs, height, width), np.int64)
    for o in range(case.outputs):
        first = o // case.group_outputs * case.group_inputs
        seen_by_o = x[:, first : first + case.group_inputs]
        for row in range(height):
            for column in range(width):
                top, left = row * case.stride[0], column * case.stride[1]
                window = seen_by_o[:, :, top : top + span_h, left : left + span_w]
                window = window[:, :, :: case.dilation[0], :: case.dilation[1]]
                y[:, o, row, column] = (window * weight[o]).sum((1, 2, 3))
    return y


def make(case: Case) -> tuple[Graph, np.ndarray, np.ndarray]:
    """The program, its input [N, I, H, W] and what the naive convolution makes of it."""
    rng = np.random.default_rng(case.seed)
    levels = int(rng.choice([255, 15, rng.integers(1, 255)]))
    zero_point = int(rng.integers(0, levels + 1))
    shape = (case.batch, case.inputs, *case.image)
    weights = (case.outputs, case.group_inputs, *case.kernel)
    if case.binary:
        x = rng.integers(0, 2, shape) * 2 - 1
        weight = rng.integers(0, 2, weights) * 2 - 1
    else:
        x = rng.integers(0, 256, shape) - zero_point
        limit = int(rng.choice([127, 7]))
        weight = rng.integers(-limit, limit + 1, weights)
    sums = naive(x if case.binary else np.minimum(x, levels - zero_point), weight, case)

    source = Value("x", Type.F32, shape[1:])
    operand = Value("operand", Type.B1 if case.binary else Type.U8, shape[1:])
    if case.binary:
        first = Step("sign", {"cut": np.zeros(case.inputs, np.float32)}, value=operand)
    else:
        numbers = {"inv_scale": 1.0, "zero_point": zero_point, "levels": levels}
        first = Step("quant8", attrs=numbers, value=operand)
    attrs = {"in_channels": case.inputs, "out_channels": case.outputs, "groups": case.groups}
    for name in ("kernel", "stride", "pad", "dilation"):
        for axis, number in zip(AXES, getattr(case, name), strict=True):
            attrs[f"{name}_{axis}"] = number
    attrs |= {"pad_value": case.outside} if case.binary else {"zero_point": zero_point}
    op = "conv_b1" if case.binary else "conv_q8"
    conv = Node(op, "conv", [operand], [], attrs, {"weight": weight.astype(np.int8)})
    nodes = [Node("pointwise", "first", [source], [operand], epilogue=[first]), conv]
    if case.to_bits:
        sums = _through_bits(nodes, sums, rng)
    output = Value("y", Type.F32, sums.shape[1:])
    nodes[-1].outputs.append(output)
    nodes[-1].epilogue += [_plain(sums.shape[1]), Step("store", value=output)]
    return Graph(nodes, source, [output], [False]), x.astype(np.float32), sums


def _plain(channels: int) -> Step:
    params = {"scale": np.ones(channels, np.float32), "bias": np.zeros(channels, np.float32)}
    return Step("affine", params)


def _through_bits(nodes: list[Node], sums: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Thresholds on the sums, and a depthwise 1x1 convolution that gives each bit as +-1."""
    channels, most = sums.shape[1], int(np.abs(sums).max())
    low = rng.integers(-most, most + 1, channels, np.int32)
    high = np.where(rng.integers(0, 2, channels), low + most // 2, 2**31 - 1).astype(np.int32)
    flip = rng.integers(0, 2, channels, np.uint8)
    bits = Value("bits", Type.B1, sums.shape[1:])
    nodes[-1].outputs.append(bits)
    nodes[-1].epilogue.append(Step("threshold", {"low": low, "high": high, "flip": flip}, {}, bits))
    attrs = {"in_channels": channels, "out_channels": channels, "groups": channels, "pad_value": 0}
    for axis in AXES:
        attrs |= {f"{name}_{axis}": 1 for name in ("kernel", "stride", "dilation")}
        attrs[f"pad_{axis}"] = 0
    ones = np.ones((channels, 1, 1, 1), np.int8)
    nodes.append(Node("conv_b1", "second", [bits], [], attrs, {"weight": ones}))
    each = [a.reshape(-1, 1, 1) for a in (low, high, flip)]
    return 2 * (((each[0] <= sums) & (sums <= each[1])) != (each[2] == 1)).astype(np.int64) - 1


def agree(case: Case) -> None:
    graph, x, expected = make(case)
    check(graph)
    np.testing.assert_array_equal(reference.run(graph, x)[0], expected, "the reference")
    file = emit.emit(graph)
    for isa in runtime.instruction_sets():
        session = runtime.load(file, threads=case.threads, isa=isa)
        np.testing.assert_array_equal(session(x), expected, isa)


ODD_DEPTHWISE = Case(
    binary=True,
    groups=5,
    group_inputs=1,
    group_outputs=1,
    kernel=(3, 2),
    stride=(2, 1),
    pad=(1, 4),
    dilation=(1, 2),
    outside=0,
    image=(1, 1),
    batch=3,
    threads=2,
    to_bits=True,
    seed=0,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(cases())
@example(ODD_DEPTHWISE)
def test_random_convolutions(case: Case) -> None:
    agree(case)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(cases())
def test_many_random_convolutions(case: Case) -> None:
    agree(case)
