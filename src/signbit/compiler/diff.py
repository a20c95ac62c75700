"""`diff`: where a compiled program first does something else than a PyTorch model.

Both run on the same input; every value that both have is compared, in the program's order. What
follows on a first difference differs because of it, so that one is described to the pixel.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor, nn

from signbit.compiler import reference
from signbit.compiler.capture import Capture, capture
from signbit.compiler.compiled import CompiledModel
from signbit.compiler.emit import emit, read_graph
from signbit.compiler.ir import INT32_MAX, INT32_MIN, Graph, Node, Step, Type, Value
from signbit.compiler.passes import lower
from signbit.compiler.verify import number_before_sign, values_of_model
from signbit.errors import SignbitError

TOLERANCE = 1e-3  # of a real number, relative to the greatest magnitude in its map


@dataclass(frozen=True)
class Place:
    """One number of a map, and what both sides have there.

    Attributes:
        image, channel, row, column: where; row and column are 0 in vectors.
        model, program: the numbers; of bits -1 and +1.
        before_sign: of a bit, the model's number that the sign was taken of (with an RSign's bias):
            next to 0 the difference is one of rounding. None if there is none.
        sum: of a bit that the program takes from a convolution's integer, that integer.
        needed: the sums that give +1 there, in words; empty without `sum`.
        distance: how far the sum is from the next one that gives the other bit; 0 if none does.
    """

    image: int
    channel: int
    row: int
    column: int
    model: float
    program: float
    before_sign: float | None = None
    sum: int | None = None
    needed: str = ""
    distance: int | None = None

    def __str__(self) -> str:
        text = (
            f"image {self.image}, channel {self.channel}, row {self.row}, column {self.column}: "
            f"the model has {self.model:g}, the program {self.program:g}"
        )
        if self.before_sign is not None:
            text += f"; the model's number before the sign is {self.before_sign:.3g}"
        if self.sum is not None:
            text += f"; the program's sum is {self.sum} (+1: {self.needed})"
            if self.distance:
                text += f", {self.distance} from the other bit"
        return text


@dataclass(frozen=True)
class ValueDiff:
    """How one map of the program compares with the model's.

    Attributes:
        name: of the map: the path of the layer that gives it.
        layers: paths of the layers that make it from the maps compared before, in their order.
        type: `bits` or `real`.
        elements: how many numbers were compared.
        differing: bits that are not equal, or real numbers that differ beyond the tolerance.
        max_error: greatest difference of real numbers, relative to the model's greatest magnitude.
        first: the first number that differs.
    """

    name: str
    layers: tuple[str, ...]
    type: str
    elements: int
    differing: int
    max_error: float
    first: Place | None

    @property
    def share(self) -> float:
        """The share of numbers that differ."""
        return self.differing / self.elements


@dataclass(frozen=True)
class Diff:
    """What `diff` found.

    Attributes:
        values: the maps that both sides have, in the order of execution.
        engine: `equal` if the engine's outputs are the reference's bit for bit, else what is
            wrong or why it did not run.
    """

    values: tuple[ValueDiff, ...]
    engine: str

    @property
    def first(self) -> ValueDiff | None:
        """The first map that differs; None if all are equal."""
        return next((value for value in self.values if value.differing), None)

    @property
    def equal(self) -> bool:
        """Whether the program does what the model does, and the engine what the program says."""
        return self.first is None and not self.engine.startswith("differs")

    def __str__(self) -> str:
        rows = [("", "value", "type", "differing", "max error", "layers")]
        for value in self.values:
            mark = ">" if value is self.first else " "
            error = "" if value.type == "bits" else f"{value.max_error:.2g}"
            share = f"{value.share:.4%}" if value.differing else "0"
            rows.append((mark, value.name, value.type, share, error, " ".join(value.layers)))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [
            " ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[5]]).rstrip()
            for row in rows
        ]
        lines.append(f"engine against reference: {self.engine}")
        if self.first is None:
            lines.append(f"equal: {len(self.values)} maps compared")
        else:
            lines.append(f"first difference: {self.first.name}, {self.first.first}")
            lines.append(f"made by {', '.join(self.first.layers)}")
        return "\n".join(lines)


def diff(
    model: nn.Module,
    compiled: CompiledModel | str | os.PathLike[str] | bytes,
    x: Tensor,
    *,
    tolerance: float = TOLERANCE,
) -> Diff:
    """Compare a model with a program compiled from it, layer by layer, on `x`.

    Every bit that differs counts. In a deep network some do without any error: where a number
    before a sign is next to 0, float32 rounding decides (`Place.before_sign` tells). Real numbers
    count where they differ by more than `tolerance` times the greatest magnitude in their map.

    Args:
        model: the model, or what it has become since.
        compiled: what `signbit.compile` gave for it, or a `.signbit` file or its bytes; a file
            knows its maps by their layers' paths alone.
        x: float32 [N, C, H, W], normalised as the model wants it.
        tolerance: of real numbers.

    Raises:
        CompileError: the model cannot be compiled any more.
        FormatError: not a `.signbit` file.
        SignbitError: the program computes in integers, or was compiled from another model; or `x`
            is no batch of images.
    """
    if x.dim() != 4 or 0 in x.shape:
        raise SignbitError(f"x must be [N, C, H, W] with at least one image, got {list(x.shape)}")
    in_memory = isinstance(compiled, CompiledModel)
    graph = compiled.graph if in_memory else read_graph(compiled)
    if graph.metadata.get("arithmetic") == "integer":
        raise SignbitError(
            "diff compares float programs with their models: for an integer program, the report of "
            'compile(..., arithmetic="integer") tells by layer how many bits differ'
        )
    captured = capture(model, x)
    names = {} if in_memory else _names(graph, lower(captured.graph))
    paths = {node.path for node in captured.graph.nodes}
    strange = [node.path for node in graph.nodes if node.path not in paths]
    if strange:
        raise SignbitError(
            f"the program was compiled from another model: this one has no layer {strange[0]!r}"
        )
    array = x.detach().cpu().float().numpy()
    try:
        outputs, values = reference.run(graph, array, collect=True)
    except ValueError as error:
        raise SignbitError(f"the program was compiled from another model: {error}") from error
    wanted = values_of_model(captured, captured.module, x)
    found = _compare(graph, values, names, captured, wanted, tolerance)
    program = emit(graph) if in_memory else compiled
    return Diff(tuple(found), _engine(program, array, outputs))


def _names(graph: Graph, fresh: Graph) -> dict[Value, str]:
    """Names of a file's values: those that the model's own lowering has at the same place."""
    by_path: dict[tuple[str, str], list[Node]] = defaultdict(list)
    for node in fresh.nodes:
        by_path[node.path, node.op].append(node)
    names = {}
    for node in graph.nodes:
        same = by_path[node.path, node.op]
        # Other numbers may lower to other steps: what then has no counterpart is left out.
        twins = same.pop(0).outputs if same else []
        for value, twin in zip(node.outputs, twins, strict=False):
            if value.type == twin.type and value.channels == twin.channels:
                names[value] = twin.name
    return names


def _compare(
    graph: Graph,
    values: dict[str, np.ndarray],
    names: dict[Value, str],
    captured: Capture,
    wanted: dict[str, np.ndarray],
    tolerance: float,
) -> Iterator[ValueDiff]:
    compared = {captured.graph.input.name}
    quantised = {node.outputs[0].name: node.inputs[0].name for node in captured.graph.nodes}
    for node in graph.nodes:
        for value in node.outputs:
            name, got = names.get(value, value.name), values[value.name]
            if value.type == Type.U8:
                name = quantised.get(name.removesuffix(":u8"), name)
            known = value.type == Type.U8 and name in compared
            if value.type not in (Type.B1, Type.F32, Type.U8) or name not in wanted or known:
                continue
            want = wanted[name]
            if got.size != want.size or got.shape[:1] != want.shape[:1]:
                raise SignbitError(
                    f"the program was compiled from another model: {name} has "
                    f"{list(got.shape)} there and {list(want.shape)} here"
                )
            want = want.reshape(got.shape)
            layers = _makers(captured.graph, name, compared)
            compared.add(name)
            if value.type == Type.F32:
                yield _reals(name, layers, got, want, tolerance)
            elif value.type == Type.U8:
                step = next(step for step in node.epilogue if step.value is value)
                yield _quantised(name, layers, got, want, tolerance, step)
            else:
                found = _bits(name, layers, got, want)
                if found.first is not None:
                    place = _explain(found, node, value, values, captured, wanted)
                    found = replace(found, first=place)
                yield found


def _makers(graph: Graph, name: str, known: set[str]) -> tuple[str, ...]:
    """Paths of the layers between the value `name` and those that are known already."""
    producers = {node.outputs[0].name: node for node in graph.nodes}
    found: dict[Node, None] = {}
    open_ = [name]
    while open_:
        node = producers.get(open_.pop())
        if node is None or node in found:
            continue
        found[node] = None
        open_ += [value.name for value in node.inputs if value.name not in known]
    return tuple(dict.fromkeys(node.path for node in graph.nodes if node in found))


def _bits(name: str, layers: tuple[str, ...], got: np.ndarray, want: np.ndarray) -> ValueDiff:
    wrong = (got != 0) != (want > 0)
    place = _first(wrong, np.where(got != 0, 1.0, -1.0), np.where(want > 0, 1.0, -1.0))
    return ValueDiff(name, layers, "bits", got.size, int(wrong.sum()), 0.0, place)


def _reals(
    name: str,
    layers: tuple[str, ...],
    got: np.ndarray,
    want: np.ndarray,
    tolerance: float,
    slack: float = 0.0,
) -> ValueDiff:
    got, want = got.astype(np.float64), want.astype(np.float64)
    scale = max(float(np.abs(want).max(initial=0.0)), np.finfo(np.float32).tiny)
    error = np.maximum(np.abs(got - want) - slack, 0.0) / scale
    wrong = ~(error <= tolerance)  # NaN on one side is wrong too
    worst = float(np.nanmax(error, initial=0.0))
    return ValueDiff(
        name, layers, "real", got.size, int(wrong.sum()), worst, _first(wrong, got, want)
    )


def _quantised(
    name: str,
    layers: tuple[str, ...],
    q: np.ndarray,
    want: np.ndarray,
    tolerance: float,
    step: Step,
) -> ValueDiff:
    """Compare 8-bit numbers as the real ones that they stand for; half a step is no difference."""
    size, zero_point = 1.0 / step.attrs["inv_scale"], step.attrs["zero_point"]
    above = step.attrs["levels"] - zero_point
    got = (q.astype(np.float64) - zero_point) * size
    want = np.clip(want.astype(np.float64), -zero_point * size, above * size)
    return _reals(name, layers, got, want, tolerance, size / 2)


def _first(wrong: np.ndarray, got: np.ndarray, want: np.ndarray) -> Place | None:
    if not wrong.any():
        return None
    at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    image, channel, row, column = (*map(int, at), 0, 0)[:4]
    return Place(image, channel, row, column, float(want[at]), float(got[at]))


# --- why a bit is what it is ---

_WRITING = ("store", "threshold", "sign", "quant8")


def _explain(
    found: ValueDiff,
    node: Node,
    value: Value,
    values: dict[str, np.ndarray],
    captured: Capture,
    wanted: dict[str, np.ndarray],
) -> Place:
    place = found.first
    assert place is not None
    at = place.image, place.channel, place.row, place.column
    sign = next(n for n in captured.graph.nodes if n.outputs[0].name == found.name)
    before = number_before_sign(sign, wanted)
    if before is not None:
        place = replace(place, before_sign=float(before.reshape(values[value.name].shape)[at]))
    step = next((step for step in node.epilogue if step.value is value), None)
    if step is None or step.kind != "threshold" or not _reads_the_sum(node, step):
        return place
    total = _sum_at(node, values, at)
    low, high, flip = (int(step.params[name][place.channel]) for name in ("low", "high", "flip"))
    edges = [edge for edge in (low, high + 1) if INT32_MIN < edge <= INT32_MAX]
    distance = min(
        (edge - total if total < edge else total - edge + 1 for edge in edges), default=0
    )
    return replace(place, sum=total, needed=_needed(low, high, bool(flip)), distance=distance)


def _reads_the_sum(node: Node, step: Step) -> bool:
    """Whether the steps before `step` leave the convolution's integer as it is."""
    before = node.epilogue[: node.epilogue.index(step)]
    return node.op in ("conv_b1", "conv_q8") and all(s.kind in _WRITING for s in before)


def _sum_at(node: Node, values: dict[str, np.ndarray], at: tuple[int, ...]) -> int:
    """The integer that a convolution's epilogue starts from, at one place."""
    x = values[node.inputs[0].name][at[0] : at[0] + 1].astype(np.float64)
    if node.op == "conv_b1":
        x, pad = x * 2 - 1, node.attrs["pad_value"]
    else:
        x, pad = x - node.attrs["zero_point"], 0
    sums = reference.convolve(x, node.params["weight"].astype(np.float64), node, pad)
    return int(sums[(0, *at[1:])])


def _needed(low: int, high: int, flip: bool) -> str:
    """The sums that give +1, in words."""
    if low == INT32_MIN and high == INT32_MAX:
        return "never" if flip else "always"
    if low == INT32_MIN:
        return f"above {high}" if flip else f"up to {high}"
    if high == INT32_MAX:
        return f"below {low}" if flip else f"from {low} on"
    return f"outside {low}..{high}" if flip else f"{low}..{high}"


# --- the engine ---


def _engine(
    program: str | os.PathLike[str] | bytes, x: np.ndarray, expected: list[np.ndarray]
) -> str:
    """`equal`, how the engine's outputs differ from the reference's, or why it did not run."""
    from signbit import runtime

    try:
        found = runtime.load(program)(x)
    except SignbitError as error:
        return f"not checked: {error}"
    found = list(found) if isinstance(found, tuple | list) else [found]
    for index, (want, got) in enumerate(zip(expected, found, strict=True)):
        got = np.ascontiguousarray(got)
        differing = int((want.view(np.uint32) != got.view(np.uint32)).sum())
        if differing:
            return (
                f"differs in {differing} of {want.size} numbers of output {index}, by up to "
                f"{float(np.abs(want - got).max()):.3g}; please report this model"
            )
    return "equal"
