"""Cycles of a network on a systolic array with a vector unit, buffers and a DRAM.

A product of K terms, M outputs and P pixels (:class:`signbit.hardware.workload.Product`) is mapped
to an array of R rows and C columns of processing elements (PEs) by its dataflow, as SCALE-Sim does
(Samajdar et al., ISPASS 2020):

========================  ======  =========  =============
dataflow                  rows    columns    time steps T
========================  ======  =========  =============
output_stationary (OS)    P       M          K
weight_stationary (WS)    K       M          P
input_stationary (IS)     K       P          M
========================  ======  =========  =============

What does not fit at once is cut into *folds*, ceil(rows / R) * ceil(columns / C) of them, one after
the other, each of

    2 R + C + T - 2 cycles:

OS: the last PE has its T pairs of operands after R + C + T - 2 cycles, for operands enter skewed at
the left and the top, and R cycles shift the sums out of the columns, upwards. WS and IS: R cycles
shift the stationary operand in from the top, and the last sum leaves the last column, at the
bottom, R + C + T - 2 cycles later.

Which cycles are counted where a fold fills only r rows and c columns is said by `folds`:

* ``full``: those of the whole array, as SCALE-Sim publishes it.
* ``trimmed``: until the last sum that is needed has left. Unused rows are the lowest: 2 r + c + T
  - 2 cycles (OS); R + r + c + T - 2 (WS, IS), where r cycles bring the stationary operand in, but
  sums leave at the bottom and pass all R rows.

Both equal a simulation that moves each operand from register to register
(tests/hardware/cycle_simulator.py). In both, a fold starts when the one before has ended, and sums
of several row folds are added where they leave, in the output buffer, at no cost in time.

**Lanes.** A PE does one multiply-accumulate a cycle, or `binary_lanes` of them where weights and
inputs are single bits: K becomes a number of words. With `packing: channels` a word holds channels
of one tap, so that K is taps * ceil(inputs / lanes); with ``dense`` it is ceil(K / lanes). (The
extension to bits is ours.)

**Vector unit.** `vector_width` element-wise operations a cycle, of all kinds, conversions of
formats too; after the product (`vector_schedule: added`) or beside it (``overlapped``). Kinds in
`output_stage` are done to a product's sums as they leave their column, and cost nothing there.

**Memory.** Three double-buffered memories: one half serves the array while the DRAM fills the
other. A layer takes the longer of computing and of moving its bits at `dram_bandwidth`. An
operand of a product is moved once where the loops use it once, or half its buffer holds it whole;
else once for each time that the loops come back to it: over column folds, within these over parts
of the stream, within these over row folds (OS: over row folds, then column folds). Other maps that
a layer reads, as those added to its sums, and its results are moved once. What a fold works on must
fit half its buffers: stationary operand, streamed operand, sums. With `streaming: tiled` a stream
(WS, IS) is cut into parts that fit, each with the fill and drain of a fold of its own; with
``whole`` such a layer is refused. Inputs are moved as maps, not as the matrices of their windows.

Imports NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from signbit.errors import SignbitError
from signbit.hardware import presets
from signbit.hardware.presets import choice, count, quantity, several, text
from signbit.hardware.workload import KINDS, Work, Workload

KIND = "systolic"
DATAFLOWS = ("output_stationary", "weight_stationary", "input_stationary")
_OS, _WS, _IS = range(3)
_BUFFERS = ("input_buffer", "weight_buffer", "output_buffer")
_INTEGERS = ("rows", "columns", "binary_lanes", "vector_width")


class CapacityError(SignbitError):
    """A layer does not fit a buffer; the message names both, and the size needed."""


@dataclass(frozen=True)
class SystolicArray:
    """A design: array, vector unit and memories. The module's docstring says what they do.

    Attributes:
        name: of the preset or design.
        rows: R, of PEs.
        columns: C, of PEs.
        dataflow: one of `DATAFLOWS`.
        binary_lanes: binary multiply-accumulates of a PE in one cycle.
        packing: ``channels`` or ``dense``.
        folds: cycles of a fold that does not fill the array: ``full`` or ``trimmed``.
        vector_width: element-wise operations in one cycle.
        vector_schedule: ``added`` or ``overlapped``.
        output_stage: kinds of element-wise work that sums get on their way out for nothing.
        streaming: ``whole`` or ``tiled``.
        input_buffer, weight_buffer, output_buffer: bits, both halves together; may be infinite.
        accumulator_width: bits of a sum in the output buffer.
        dram_bandwidth: bits a cycle; may be infinite.
        clock: Hz; None where only cycles are asked for.

    A size of 0 and every other value out of range raise PresetError with the field.
    """

    name: str = text()
    rows: int = count()
    columns: int = count()
    dataflow: str = choice(DATAFLOWS)
    binary_lanes: int = count()
    packing: str = choice(("channels", "dense"))
    folds: str = choice(("full", "trimmed"))
    vector_width: int = count()
    vector_schedule: str = choice(("added", "overlapped"))
    output_stage: tuple[str, ...] = several(KINDS)
    streaming: str = choice(("whole", "tiled"))
    input_buffer: float = quantity("memory", unlimited=True)
    weight_buffer: float = quantity("memory", unlimited=True)
    output_buffer: float = quantity("memory", unlimited=True)
    accumulator_width: float = quantity("memory")
    dram_bandwidth: float = quantity("bandwidth", unlimited=True)
    clock: float | None = quantity("frequency", None)

    def __post_init__(self) -> None:
        presets.check_fields(self, self.name)

    @classmethod
    def load(cls, name: str | Path) -> SystolicArray:
        """A preset by its name or by the path of its file; see :func:`presets.load`."""
        return presets.load(name, cls, KIND)


@dataclass(frozen=True)
class LayerCycles:
    """One layer on an array, for one image. All times in cycles from the start of the network.

    Attributes:
        name: path of the layer.
        op: its operation.
        folds: of its product, parts of streams and groups counted; 0 without a product.
        compute: start and end of the array's work.
        vector: start and end of the vector unit's.
        memory: start and end of the DRAM's.
        end: when the next layer starts.
        utilisation: share of the array's multiply-accumulates in `compute` that are needed ones.
        dram_bits: moved from and to the DRAM.
    """

    name: str
    op: str
    folds: int
    compute: tuple[int, int]
    vector: tuple[int, int]
    memory: tuple[int, int]
    end: int
    utilisation: float
    dram_bits: int

    @property
    def start(self) -> int:
        """When it starts: when the layer before ends."""
        return self.compute[0]

    @property
    def cycles(self) -> int:
        """From its start to that of the next."""
        return self.end - self.start

    @property
    def bound(self) -> str:
        """What takes longest: "compute", "vector" or "memory"."""
        spans = {name: np.subtract(*getattr(self, name)[::-1]) for name in _PARTS}
        return max(spans, key=lambda name: spans[name])

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "layer": self.name,
            "operation": self.op,
            "folds": self.folds,
            "compute": list(self.compute),
            "vector": list(self.vector),
            "memory": list(self.memory),
            "end": self.end,
            "cycles": self.cycles,
            "utilisation": self.utilisation,
            "dram_bits": self.dram_bits,
            "bound": self.bound,
        }


_PARTS = ("compute", "vector", "memory")


@dataclass(frozen=True)
class ArrayEstimate:
    """A network on an array, for one image.

    Attributes:
        network: its name.
        array: the design.
        layers: in the order of execution.
    """

    network: str
    array: SystolicArray
    layers: tuple[LayerCycles, ...]

    @property
    def cycles(self) -> int:
        """Of all layers."""
        return self.layers[-1].end if self.layers else 0

    @property
    def seconds(self) -> float | None:
        """Of all layers; None where the design has no clock."""
        return None if self.array.clock is None else self.cycles / self.array.clock

    @property
    def dram_bits(self) -> int:
        """Moved from and to the DRAM."""
        return sum(layer.dram_bits for layer in self.layers)

    def part(self, name: str) -> int:
        """Cycles in which one part is busy: "compute", "vector" or "memory"."""
        return sum(getattr(each, name)[1] - getattr(each, name)[0] for each in self.layers)

    @property
    def utilisation(self) -> float:
        """Of the array while it computes, weighted by cycles; 0 where nothing is computed."""
        spans = [each.compute[1] - each.compute[0] for each in self.layers]
        used = sum(s * each.utilisation for s, each in zip(spans, self.layers, strict=True))
        return used / sum(spans) if any(spans) else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "network": self.network,
            "array": self.array.name,
            "cycles": self.cycles,
            "seconds": self.seconds,
            **{f"{name}_cycles": self.part(name) for name in _PARTS},
            "utilisation": self.utilisation,
            "dram_bits": self.dram_bits,
            "layers": [each.to_dict() for each in self.layers],
        }


def estimate(workload: Workload, array: SystolicArray) -> ArrayEstimate:
    """Cycles of every layer of a network on an array.

    Raises CapacityError for the first layer that does not fit a buffer, with the size needed.
    """
    grid = evaluate(Layers(workload), [array])
    unfit = grid.unfit(0)
    if unfit is not None:
        raise CapacityError(unfit)
    layers, start = [], 0
    for i, work in enumerate(workload.layers):
        compute, vector, memory, total, folds, bits = (
            int(part[0, i])
            for part in (
                grid.compute, grid.vector, grid.memory, grid.total, grid.folds, grid.dram_bits,
            )
        )  # fmt: skip
        first = start + compute if array.vector_schedule == "added" else start
        layers.append(
            LayerCycles(
                work.name,
                work.op,
                folds,
                compute=(start, start + compute),
                vector=(first, first + vector),
                memory=(start, start + memory),
                end=start + total,
                utilisation=float(grid.utilisation[0, i]),
                dram_bits=bits,
            )
        )
        start += total
    return ArrayEstimate(workload.name, array, tuple(layers))


# --- many designs at once: arrays of designs x layers ---


class Layers:
    """A network as columns of numbers, for :func:`evaluate`; each [1, L]."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        products = [layer.product for layer in workload.layers]
        self.names = [layer.name for layer in workload.layers]
        self.has_product = np.array([[p is not None for p in products]], bool)

        def column(name: str) -> np.ndarray:
            # 1 where there is no product: a neutral size, whose cycles are masked afterwards
            values = [1 if p is None else int(getattr(p, name)) for p in products]
            return np.array([values], np.int64)

        self.taps, self.inputs, self.outputs = map(column, ("taps", "inputs", "outputs"))
        self.pixels, self.groups = map(column, ("pixels", "groups"))
        self.weight_width, self.input_width = map(column, ("weight_bits", "input_bits"))
        self.macs = column("macs")
        self.binary = self.has_product & (column("binary") == 1)
        self.depth = self.taps * self.inputs
        self.elementwise = np.array(
            [[[layer.elementwise.get(kind, 0) for kind in KINDS] for layer in workload.layers]],
            np.int64,
        ).reshape(1, len(products), len(KINDS))
        self.parameters, read, self.added, self.written = (
            np.array([[getattr(layer, name) for layer in workload.layers]], np.int64)
            for name in ("weight_bits", "input_bits", "added_bits", "output_bits")
        )
        self.operand = read - self.added
        _check_kinds(workload.layers)


def _check_kinds(layers: Sequence[Work]) -> None:
    for layer in layers:
        unknown = set(layer.elementwise) - set(KINDS)
        if unknown:
            raise ValueError(f"{layer.name}: no kinds of work: {', '.join(sorted(unknown))}")


@dataclass(frozen=True)
class Grid:
    """Designs on layers: arrays [D, L] of cycles, folds, shares and bits.

    `needs` has what a fold needs in each of the three buffers, in bits of one half.
    """

    designs: Sequence[SystolicArray]
    layers: Layers
    compute: np.ndarray
    vector: np.ndarray
    memory: np.ndarray
    total: np.ndarray
    folds: np.ndarray
    utilisation: np.ndarray
    dram_bits: np.ndarray
    needs: tuple[np.ndarray, np.ndarray, np.ndarray]

    @property
    def fits(self) -> np.ndarray:
        """Which layers fit, [D, L]."""
        checks = []
        for name, need in zip(_BUFFERS, self.needs, strict=True):
            checks.append(need <= _column(self.designs, name) / 2)
        return np.logical_and.reduce(checks)

    def unfit(self, design: int) -> str | None:
        """What does not fit a design, in words: the first layer, its buffer, the size needed."""
        at = np.flatnonzero(~self.fits[design])
        if not at.size:
            return None
        array, layer = self.designs[design], int(at[0])
        for name, need in zip(_BUFFERS, self.needs, strict=True):
            size, held = 2 * need[design, layer], getattr(array, name)
            if size > held:
                break
        tiled = array.streaming == "tiled" or array.dataflow == "output_stationary"
        way = "" if tiled else ", or streaming: tiled"
        return (
            f"{self.layers.names[layer]} does not fit {array.name}: its folds need "
            f"{_size(size)} of {name} (both halves), which has {_size(held)}; "
            f"give it that much{way}"
        )


def _size(bits: float) -> str:
    for unit, factor in (("MiB", 8 * 1024.0**2), ("KiB", 8 * 1024.0), ("B", 8.0)):
        if bits >= factor:
            return f"{bits / factor:,.4g} {unit}"
    return f"{bits:g} bit"


def _column(designs: Sequence[SystolicArray], name: str) -> np.ndarray:
    """A field of all designs, [D, 1]."""
    kind = np.int64 if name in _INTEGERS else np.float64
    return np.array([[getattr(each, name)] for each in designs], kind)


def _is(designs: Sequence[SystolicArray], name: str, value: str) -> np.ndarray:
    return np.array([[getattr(each, name) == value] for each in designs], bool)


def _ceil(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return -(-a // b)


@dataclass(frozen=True)
class _Mapping:
    """How products lie on arrays, [D, L]: along rows, columns and time, and in folds."""

    rows: np.ndarray
    columns: np.ndarray
    steps: np.ndarray
    row_folds: np.ndarray
    column_folds: np.ndarray
    used_rows: np.ndarray
    used_columns: np.ndarray
    lanes: np.ndarray
    dataflow: np.ndarray


def _map(la: Layers, designs: Sequence[SystolicArray]) -> _Mapping:
    lanes = np.where(la.binary, _column(designs, "binary_lanes"), 1)
    aligned = la.taps * _ceil(la.inputs, lanes)
    words = np.where(_is(designs, "packing", "dense"), _ceil(la.depth, lanes), aligned)
    dataflow = np.array([[DATAFLOWS.index(each.dataflow)] for each in designs])
    m, p = np.broadcast_arrays(la.outputs, la.pixels)
    m, p = np.broadcast_to(m, words.shape), np.broadcast_to(p, words.shape)
    flow = np.broadcast_to(dataflow, words.shape)
    rows = np.choose(flow, [p, words, words])
    columns = np.choose(flow, [m, m, p])
    steps = np.choose(flow, [words, p, m])
    r, c = _column(designs, "rows"), _column(designs, "columns")
    return _Mapping(
        rows, columns, steps, _ceil(rows, r), _ceil(columns, c),
        np.minimum(rows, r), np.minimum(columns, c), lanes, flow,
    )  # fmt: skip


def _needs(
    la: Layers, designs: Sequence[SystolicArray], m: _Mapping
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Parts of the stream [D, L], and bits that a fold needs in half of each buffer."""
    weight, value = m.lanes * la.weight_width, m.lanes * la.input_width  # bits of a word
    sums = _column(designs, "accumulator_width")
    halves = [np.broadcast_to(_column(designs, name) / 2, m.rows.shape) for name in _BUFFERS]
    # a step of the stream: of WS r words of inputs, of IS r words of weights, and c sums
    step_in = m.used_rows * np.where(m.dataflow == _IS, weight, value)
    stream_half = np.where(m.dataflow == _IS, halves[1], halves[0])
    longest = np.minimum(stream_half / step_in, halves[2] / (m.used_columns * sums))
    cut = _is(designs, "streaming", "tiled") & (m.dataflow != _OS)
    # where not even one step fits, the stream stays at one step a part, and does not fit
    at_once = np.where(cut, np.clip(np.floor(longest), 1, m.steps), m.steps).astype(np.int64)
    tiles = _ceil(m.steps, at_once)
    # OS keeps sums in the PEs: its stream may stop at any step, and tiled needs only one of it
    steps = np.where(_is(designs, "streaming", "tiled") & (m.dataflow == _OS), 1, at_once)
    r, c = m.used_rows, m.used_columns
    inputs = np.choose(m.dataflow, [r * steps * value, r * steps * value, r * c * value])
    weights = np.choose(m.dataflow, [c * steps * weight, r * c * weight, r * steps * weight])
    outputs = c * np.where(m.dataflow == _OS, r, steps) * sums
    return tiles, [np.where(la.has_product, x, 0) for x in (inputs, weights, outputs)]


def _array_cycles(designs: Sequence[SystolicArray], m: _Mapping, tiles: np.ndarray) -> np.ndarray:
    """Cycles of a group's folds, [D, L]."""
    r, c = _column(designs, "rows"), _column(designs, "columns")
    folds = m.row_folds * m.column_folds
    full = tiles * (2 * r + c - 2)
    # sums of r and of c over all folds
    rows, columns = m.rows * m.column_folds, m.columns * m.row_folds
    across = np.where(m.dataflow == _OS, 2 * rows, folds * r + rows) + columns
    trimmed = tiles * (across - 2 * folds)
    return np.where(_is(designs, "folds", "full"), folds * full, trimmed) + folds * m.steps


def _dram_bits(
    la: Layers, designs: Sequence[SystolicArray], m: _Mapping, tiles: np.ndarray
) -> np.ndarray:
    half_in, half_weights = (_column(designs, name) / 2 for name in _BUFFERS[:2])
    # an output-stationary row fold uses its inputs for all column folds at once
    fold_in = m.used_rows * m.steps * m.lanes * la.input_width
    held_in = np.where(m.dataflow == _OS, fold_in, la.operand) <= half_in
    held_weights = la.parameters <= half_weights
    again_in = np.choose(m.dataflow, [m.column_folds, m.column_folds, tiles])
    again_weights = np.choose(m.dataflow, [m.row_folds, tiles, m.column_folds])
    inputs = la.operand * np.where(held_in | ~la.has_product, 1, again_in)
    weights = la.parameters * np.where(held_weights | ~la.has_product, 1, again_weights)
    return inputs + la.added + weights + la.written


def evaluate(layers: Layers, designs: Sequence[SystolicArray]) -> Grid:
    """All layers on all designs, at once; layers that do not fit are marked (`Grid.fits`)."""
    m = _map(layers, designs)
    tiles, needs = _needs(layers, designs, m)
    compute = layers.has_product * layers.groups * _array_cycles(designs, m, tiles)
    pes = _column(designs, "rows") * _column(designs, "columns") * m.lanes
    busy = np.where(layers.has_product, compute, 1) * pes

    kept = np.array([[kind not in each.output_stage for kind in KINDS] for each in designs])
    # of a layer without product, nothing leaves a column
    counted = np.where(layers.has_product[..., None], kept[:, None, :], True)
    operations = (layers.elementwise * counted).sum(-1)
    vector = _ceil(operations, _column(designs, "vector_width"))

    bits = _dram_bits(layers, designs, m, tiles)
    memory = np.ceil(bits / _column(designs, "dram_bandwidth")).astype(np.int64)
    added = _is(designs, "vector_schedule", "added")
    work = np.where(added, compute + vector, np.maximum(compute, vector))
    return Grid(
        designs,
        layers,
        compute,
        vector,
        memory,
        total=np.maximum(work, memory),
        folds=layers.has_product * layers.groups * m.row_folds * m.column_folds * tiles,
        utilisation=np.where(layers.has_product, layers.macs / busy, 0.0),
        dram_bits=bits,
        needs=tuple(needs),  # type: ignore[arg-type]
    )
