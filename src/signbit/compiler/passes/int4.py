"""INT4 adds: each operand becomes a map from a convolution's sum to 4 bits, their sum an integer.

The map is a ladder of 15 compares. Where a multiply and a shift give the same on every reachable
integer, those are emitted instead, for they are cheaper.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from signbit.compiler.ir import INT32_MAX, INT32_MIN, Graph, Node, Type, Value
from signbit.compiler.passes.paths import EXHAUSTIVE, changes, evaluate, reachable, tables, walk_up
from signbit.errors import CompileError

LEVELS = np.arange(-7, 8, dtype=np.int64)  # the 15 values above -8
_SHIFTS = range(24, -1, -1)


def lower_int4(graph: Graph) -> Graph:
    """Replace each `int4_add` by two maps to i4, an integer `add`, and the `affine` of its scale.

    Raises CompileError, naming the layer, where an operand is no per-channel function of a
    convolution's sum, or is not monotone.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op != "int4_add":
            nodes.append(node)
            continue
        operands = [_operand(graph, node, index) for index in range(2)]
        out = node.outputs[0]
        total = Value(f"{out.name}:sum", Type.I32, out.shape)
        scale = np.full(out.channels, node.attrs["step"])
        nodes += [
            *operands,
            Node("add", node.path, [o.outputs[0] for o in operands], [total]),
            Node(
                "affine",
                node.path,
                [total],
                [out],
                {},
                {"scale": scale, "bias": np.zeros_like(scale)},
            ),
        ]
    return replace(graph, nodes=nodes)


def _operand(graph: Graph, add: Node, index: int) -> Node:
    value = add.inputs[index]
    source, steps = walk_up(graph, value)
    if source.type != Type.I32:
        raise CompileError(
            f"{add.path}: operand {value.name} is not a convolution's sum behind per-channel "
            "layers; signbit.nn.Int4Add adds two of signbit.nn.BinaryConv2d -> BatchNorm2d"
        )
    low, high = reachable(graph.producer(source))
    step = add.attrs["step"]
    cuts, flip = ladder(steps, low, high, step, f"{add.path}, operand {value.name}")
    ends = evaluate(steps, np.stack([low, high], 1).astype(np.float64)) / step
    slope = np.abs(ends[:, 1] - ends[:, 0]) / np.maximum(high - low, 1)
    found = multiply_shift(cuts, flip, slope, low, high)
    quantised = Value(f"{add.outputs[0].name}:{'ab'[index]}", Type.I4, value.shape)
    path = steps[-1].path if steps else add.path
    if found is None:
        params = {"cuts": cuts, "flip": flip}
        return Node("quant4_ladder", path, [source], [quantised], {}, params)
    shift, params = found
    return Node("quant4_shift", path, [source], [quantised], {"shift": shift}, params)


def quantize(values: np.ndarray, step: float) -> np.ndarray:
    """Real numbers to 4 bits, as the model does it: clip(rint(v / step), -8, 7)."""
    return np.clip(np.rint(values / step), -8, 7)


def ladder(
    steps: list[Node], low: np.ndarray, high: np.ndarray, step: float, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts [C, 15] (int64) and flip [C] (uint8) that equal the path on every integer low..high.

    A value that is never reached has the cut INT32_MAX, one that is always reached INT32_MIN.
    Raises CompileError, naming the channel, for a path that is not monotone.
    """
    if high.max() - low.min() >= EXHAUSTIVE:
        return _bisected_ladder(steps, low, high, step, where)
    cuts = np.empty((len(low), 15), np.int64)
    flip = np.zeros(len(low), np.uint8)
    for channels, first, values in tables(steps, low, high):
        q = quantize(values, step)
        slope = np.diff(q, axis=1)
        falling = (slope < 0).any(1)
        mixed = falling & (slope > 0).any(1)
        if mixed.any():
            raise _not_monotone(where, channels.start + int(np.argmax(mixed)))
        # In u = -v a falling row rises: read it backwards.
        q[falling] = q[falling, ::-1]
        start = np.where(falling, -(first + q.shape[1] - 1), first)
        for j, level in enumerate(LEVELS):
            below = (q < level).sum(1)
            cut = start + below
            cut[below == 0] = INT32_MIN
            cut[below == q.shape[1]] = INT32_MAX
            cuts[channels, j] = cut
        flip[channels] = falling
    return cuts, flip


def _bisected_ladder(
    steps: list[Node], low: np.ndarray, high: np.ndarray, step: float, where: str
) -> tuple[np.ndarray, np.ndarray]:
    cuts = np.empty((len(low), 15), np.int64)
    flip = np.zeros(len(low), np.uint8)
    for channel in range(len(low)):
        bounds = int(low[channel]), int(high[channel])
        found = [
            changes(steps, channel, *bounds, lambda y, n=level: quantize(np.float64(y), step) >= n)
            for level in LEVELS.tolist()
        ]
        ways = {first for first, at in found if at}
        if len(ways) > 1 or any(len(at) > 1 for _, at in found):
            raise _not_monotone(where, channel)
        falling = ways == {True}
        flip[channel] = falling
        for j, (first, at) in enumerate(found):
            if not at:
                cuts[channel, j] = INT32_MIN if first else INT32_MAX
            else:
                cuts[channel, j] = 1 - at[0] if falling else at[0]
    return cuts, flip


def multiply_shift(
    cuts: np.ndarray, flip: np.ndarray, slope: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[int, dict[str, np.ndarray]] | None:
    """A shift, multipliers and offsets [C] that equal the ladder on every integer low..high.

    With m >= 0, `(u * m + o) >> s` reaches a level n exactly from its cut c on where
    `c * m + o >= n << s` and `(c - 1) * m + o < n << s`: for a given m, an interval of offsets.
    `slope` [C] is the ladder's steepness in levels an integer. Returns None where no shift serves
    all channels, or int32 would overflow.
    """
    sign = np.where(flip, -1, 1)
    first, last = np.where(flip, -high, low), np.where(flip, -low, high)
    always, never = cuts == INT32_MIN, cuts == INT32_MAX
    reached = np.where(always, first[:, None], cuts)  # the least u at which a level is held
    missed = np.where(never, last[:, None], cuts - 1)  # the greatest u at which it is not
    for shift in _SHIFTS:
        levels = LEVELS << shift
        guess = np.rint(np.minimum(slope * (1 << shift), 2.0**31)).astype(np.int64)
        multiplier, offset = np.zeros_like(guess), np.zeros_like(guess)
        done = np.zeros(len(guess), bool)
        for nudge in (0, 1, -1, 2, -2):
            m = np.maximum(guess + nudge, 0)
            least = np.where(never, -(2**62), levels - reached * m[:, None]).max(1)
            most = np.where(always, 2**62, levels - 1 - missed * m[:, None]).min(1)
            o = np.clip(0, least, np.maximum(least, most))
            extreme = np.maximum(np.abs(first), np.abs(last)) * m
            good = (least <= most) & (extreme + np.abs(o) <= INT32_MAX) & ~done
            multiplier[good], offset[good] = (sign * m)[good], o[good]
            done |= good
        if done.all():
            return shift, {"multiplier": multiplier, "offset": offset}
    return None


def _not_monotone(where: str, channel: int) -> CompileError:
    return CompileError(
        f"{where}: channel {channel} rises and falls along the convolution's sum; an INT4 operand "
        "must be monotone: use no PReLU with a negative slope before signbit.nn.Int4Add"
    )
