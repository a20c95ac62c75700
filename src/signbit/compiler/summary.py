"""`signbit.summary`: a line a layer, for models that compile and for those that do not yet."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from signbit.compiler.capture import Capture, capture_leniently
from signbit.compiler.ir import Graph, Node, Type, Value
from signbit.compiler.layers import UNCALIBRATED
from signbit.compiler.passes import lower
from signbit.errors import CompileError
from signbit.hardware.counts import PRECISIONS, Count, count_layers, total
from signbit.hardware.multiplications import KINDS

BITS = {
    Type.F32: 32,
    Type.I32: 32,
    Type.I16: 16,
    Type.I8: 8,
    Type.U8: 8,
    Type.I4: 4,
    Type.B1: 1,
}
_REAL_ONLY = ("conv2d", "linear", "unsupported")
_RUNS = {
    "binary_conv2d": "binary",
    "binary_linear": "binary",
    "max_pool": "pooling",
    "avg_pool": "pooling",
    "global_avg_pool": "pooling",
    "adaptive_pool": "pooling",
    "channels": "data movement",
    "resize": "data movement",
    "pixel_shuffle": "data movement",
    "identity": "nothing to do",
    "flatten": "nothing to do",
}


@dataclass(frozen=True)
class Row:
    """One call of one layer.

    Attributes:
        path: the layer's path in the model.
        type: its class, or the function called.
        shape: (C, H, W) of what it gives for one image.
        count: parameters and MACs by precision, multiplications.
        memory: bytes of what it leaves in memory for one image, at the type that the program
            stores, with its input's 8-bit form if it makes one; 0 where all is fused. Where the
            model cannot be lowered: of its output, as bits or float32.
        runs: `binary`, `8-bit`, `4-bit`, `pooling`, `data movement`, `fused` (into what produces
            its input), `pointwise` (a pass over memory of its own), `nothing to do`, `8-bit,
            calibrate first` (or `4-bit`), or `refused`.
        reasons: why it is refused, or what it lacks.
    """

    path: str
    type: str
    shape: tuple[int, int, int]
    count: Count
    memory: float
    runs: str
    reasons: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The row as JSON can hold it."""
        return {
            "path": self.path,
            "type": self.type,
            "shape": list(self.shape),
            **self.count.to_dict(),
            "memory": self.memory,
            "runs": self.runs,
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True)
class Summary:
    """Rows in the order of the calls, and what the compiler refuses beside single layers."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()

    @property
    def total(self) -> Count:
        """The sum of all rows."""
        return total(row.count for row in self.rows)

    @property
    def compiles(self) -> bool:
        """Whether the compiler takes the model as it is."""
        return not self.problems and not any(row.reasons for row in self.rows)

    def to_dict(self) -> dict[str, object]:
        """The summary as JSON can hold it."""
        return {
            "rows": [row.to_dict() for row in self.rows],
            "total": self.total.to_dict() | {"memory": sum(row.memory for row in self.rows)},
            "compiles": self.compiles,
            "problems": list(self.problems),
        }

    def __str__(self) -> str:
        return _text(self)


def summarize(model: nn.Module, example_input: Tensor) -> Summary:
    """Count a model layer by layer for images like `example_input` [N, C, H, W].

    Works on models that are not calibrated or hold layers that the compiler refuses; their rows say
    why. Raises CompileError for an example of another shape.
    """
    captured = capture_leniently(model, example_input)
    lowered, failure = _try_to_lower(captured)
    refused: dict[str, list[str]] = {}
    for problem in captured.problems:
        refused.setdefault(problem.path, []).append(problem.reason)
    if failure is not None:
        refused.setdefault(_layer_at_fault(captured.graph, failure), []).append(failure)
    modules = dict(model.named_modules())
    rows = []
    steps = []
    for node, (path, count) in zip(captured.graph.nodes, count_layers(captured.graph), strict=True):
        if ":" in node.outputs[0].name:
            steps.append(count)  # on the way to the layer's result
            continue
        reasons = refused.get(path, [])
        rows.append(
            Row(
                path,
                _type_name(modules, node),
                node.outputs[0].shape,
                total([*steps, count]),
                _memory(node, lowered),
                _runs(node, lowered, reasons),
                tuple(reasons),
            )
        )
        steps = []
    paths = {row.path for row in rows}
    problems = [
        f"{path or 'the model'}: {reason}"
        for path, reasons in refused.items()
        for reason in reasons
        if path not in paths
    ]
    return Summary(tuple(rows), tuple(problems))


def _try_to_lower(captured: Capture) -> tuple[Graph | None, str | None]:
    """The lowered graph, or why there is none. Layers that only lack calibration do not matter."""
    graph = captured.graph
    refused = any(problem.reason != UNCALIBRATED for problem in captured.problems)
    if not graph.outputs or refused or any(node.op in _REAL_ONLY for node in graph.nodes):
        return None, None
    try:
        return lower(graph), None
    except CompileError as error:
        # The capture said it already, in the words of the layer.
        return None, None if captured.problems else str(error)


def _layer_at_fault(graph: Graph, message: str) -> str:
    """The layer whose path an error begins with, or an empty string."""
    paths = [node.path for node in graph.nodes if message.startswith(node.path)]
    return max(paths, key=len, default="")


def _type_name(modules: dict[str, nn.Module], node: Node) -> str:
    if node.path in modules:
        return type(modules[node.path]).__name__
    return node.path.rpartition(".")[2]


def _stored(node: Node, lowered: Graph) -> list[Value]:
    """What the program keeps in memory of this layer."""
    name = node.outputs[0].name
    written = [value for each in lowered.nodes for value in each.outputs]
    return [value for value in written if value.name.split(":")[0] == name]


def _memory(node: Node, lowered: Graph | None) -> float:
    values = node.outputs if lowered is None else _stored(node, lowered)
    bits = 0
    for value in values:
        channels, height, width = value.shape
        bits += channels * height * width * BITS[value.type]
    return bits / 8


def _runs(node: Node, lowered: Graph | None, reasons: list[str]) -> str:
    if node.op in _REAL_ONLY or any(reason != UNCALIBRATED for reason in reasons):
        return "refused"
    if "bits" in node.attrs:
        return f"{node.attrs['bits']}-bit{', calibrate first' if reasons else ''}"
    if node.op in _RUNS:
        return _RUNS[node.op]
    alone = lowered is not None and any(
        each.op == "pointwise" and each.path == node.path for each in lowered.nodes
    )
    return "pointwise" if alone else "fused"


# --- text ---

_LEFT = ("layer", "type", "output", "runs")


def _text(summary: Summary) -> str:
    whole = summary.total
    # few networks have layers of 4 bits, and a line is long enough
    shown = [bits for bits in PRECISIONS if bits != 4 or whole.params[bits] or whole.macs[bits]]
    table = []
    for row in summary.rows:
        shape = "x".join(map(str, row.shape))
        table.append(_cells(shown, row.path, row.type, shape, row.count, row.memory, row.runs))
    memory = sum(row.memory for row in summary.rows)
    footer = _cells(shown, "total", "", "", whole, memory, "")
    lines = _aligned([_columns(shown), *table, footer])
    rule = "-" * max(map(len, lines))
    lines = [lines[0], rule, *lines[1:-1], rule, lines[-1], ""]
    lines.append(
        f"OPs = FLOPs + BOPs/64, a MAC counting 1; CPU64 {_number(whole.cpu64)}, "
        f"ACE {_number(whole.ace)}; parameters {_number(whole.weight_bytes)}B"
    )
    lines.append(_multiplications(whole))
    reasons = [
        f"{row.path} ({row.type}): {reason}"
        for row in summary.rows
        for reason in row.reasons
        if reason != UNCALIBRATED
    ]
    waiting = [row.runs for row in summary.rows if UNCALIBRATED in row.reasons]
    if waiting:
        lines.append(
            f"Note: {_layers(waiting)} not know the input's range yet: call "
            "signbit.calibrate(model, loader), or train, before compiling"
        )
    if reasons or summary.problems:
        lines += [
            "",
            "The compiler refuses:",
            *(f"  {text}" for text in (*summary.problems, *reasons)),
        ]
    return "\n".join(lines)


def _layers(runs: list[str]) -> str:
    """How many layers of 8 or 4 bits there are, and the verb."""
    kinds = {text.partition(",")[0] for text in runs}
    kind = kinds.pop() if len(kinds) == 1 and "refused" not in kinds else "quantised"
    return f"1 {kind} layer does" if len(runs) == 1 else f"{len(runs)} {kind} layers do"


def _multiplications(whole: Count) -> str:
    kinds = sorted(whole.multiplications.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{KINDS[kind]} {_number(number)}" for kind, number in kinds)
    return (
        f"multiplications {_number(whole.mo)} between stem and head (MO, A&B BNN's convention); "
        f"{_number(whole.strict_mo)} in all{': ' if listed else ''}{listed}"
    )


def _columns(shown: list[int]) -> list[str]:
    precisions = [f"{bits}-bit" for bits in shown]
    counts = [f"{what} {precisions[0]}" for what in ("params", "MACs")]
    return [
        "layer", "type", "output", counts[0], *precisions[1:], counts[1], *precisions[1:],
        "BOPs", "FLOPs", "OPs", "memory", "runs",
    ]  # fmt: skip


def _cells(
    shown: list[int], path: str, kind: str, shape: str, count: Count, memory: float, runs: str
) -> list[str]:
    params = [_number(count.params[bits]) for bits in shown]
    macs = [_number(count.macs[bits]) for bits in shown]
    operations = [_number(n) for n in (count.bops, count.flops, count.ops)]
    return [path, kind, shape, *params, *macs, *operations, f"{_number(memory)}B", runs]


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [
            text.ljust(width) if name in _LEFT else text.rjust(width)
            for name, text, width in zip(table[0], row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _number(value: float) -> str:
    """Three digits and a letter: 118M, 0, 1.68G."""
    for letter, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return (
                f"{value / size:.3g}{letter}"
                if value < 999.5 * size
                else f"{value / size:.0f}{letter}"
            )
    return f"{value:.3g}" if value % 1 else f"{value:.0f}"
