"""Streaming accelerators in the manner of FINN: a unit a layer, all of them at work at once.

Each product has a matrix-vector unit of its own with PE rows (outputs at once) and SIMD columns
(inputs at once), weights in memories beside it, and pixels passing through. One image takes it

    pixels * (outputs / PE) * (inputs * taps / SIMD) cycles

(FINN, Umuroglu et al., FPGA 2017; `get_exp_cycles` of its MVAU), so PE must divide the outputs and
SIMD the inputs times taps. Units work on different images or lines at the same time: throughput
is the clock over the cycles of the slowest, and the time of one image that enters an empty pipeline
is at most the sum of all (what FINN's analysis calls its critical path). Queues and width
converters between units take memory that is not counted here. Groups are parts of one unit that
take turns.

*Folding* chooses PE and SIMD. :func:`fold` meets a number of cycles as FINN's SetFolding does:
first SIMD grows, while a PE's weights of one cycle are no wider than `weight_stream_width`, then
PE; where no choice is fast enough, all others are relaxed to the slowest. Element-wise work between
products is done a number of lanes at once, as many as are needed to keep up.

Block memories are counted as FINN-R does (Blott et al., 2018): a memory of outputs * K / (PE *
SIMD) words of PE * SIMD weights, made of 18 Kbit blocks. Bits without overhead are given beside.

Imports NumPy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signbit.errors import SignbitError
from signbit.hardware import presets
from signbit.hardware.presets import count, quantity, text
from signbit.hardware.workload import Product, Work, Workload

KIND = "streaming"
# depth and width of a block of 18 Kbit, narrowest words first (UG573, simple dual port)
_BLOCKS = ((1, 16384), (2, 8192), (4, 4096), (9, 2048), (18, 1024))
_WIDEST = (36, 512)


class FoldingError(SignbitError):
    """A throughput that cannot be reached, or a folding that does not divide a layer."""


@dataclass(frozen=True)
class StreamingFabric:
    """What layers are laid out on.

    Attributes:
        name: of the preset.
        clock: Hz.
        weight_stream_width: bits of weights that one PE takes a cycle, at most.
        target_frames: images a second that are aimed at.
        block_memories: of 18 Kbit, that there are.

    Values out of range raise PresetError with the field.
    """

    name: str = text()
    clock: float = quantity("frequency")
    weight_stream_width: float = quantity("memory")
    target_frames: float = quantity("frame rate")
    block_memories: int = count()

    def __post_init__(self) -> None:
        presets.check_fields(self, self.name)

    @classmethod
    def load(cls, name: str | Path) -> StreamingFabric:
        """A preset by its name or by the path of its file; see :func:`presets.load`."""
        return presets.load(name, cls, KIND)


@dataclass(frozen=True)
class Unit:
    """The unit of one layer.

    Attributes:
        name: path of the layer.
        pe: outputs at once; of element-wise work, lanes.
        simd: inputs at once; 1 for element-wise work.
        cycles: for one image.
        weight_bits: of all parameters.
        block_memories: of 18 Kbit, for the weights of a product.
    """

    name: str
    pe: int
    simd: int
    cycles: int
    weight_bits: int
    block_memories: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "layer": self.name,
            "pe": self.pe,
            "simd": self.simd,
            "cycles": self.cycles,
            "weight_bits": self.weight_bits,
            "block_memories": self.block_memories,
        }


@dataclass(frozen=True)
class StreamingEstimate:
    """A network as a pipeline of units.

    Attributes:
        network: its name.
        fabric: what it stands on.
        units: in the order of the layers; layers that only move numbers have none.
        target_cycles: for one image, that were aimed at.
    """

    network: str
    fabric: StreamingFabric
    units: tuple[Unit, ...]
    target_cycles: int

    @property
    def interval(self) -> int:
        """Cycles from image to image: those of the slowest unit."""
        return max((unit.cycles for unit in self.units), default=0)

    @property
    def frames_per_second(self) -> float:
        """Images a second."""
        return self.fabric.clock / self.interval

    @property
    def latency(self) -> float:
        """Seconds at most for an image that enters an empty pipeline."""
        return sum(unit.cycles for unit in self.units) / self.fabric.clock

    @property
    def weight_bits(self) -> int:
        """Of all parameters."""
        return sum(unit.weight_bits for unit in self.units)

    @property
    def block_memories(self) -> int:
        """Of 18 Kbit, for all weights."""
        return sum(unit.block_memories for unit in self.units)

    @property
    def meets_target(self) -> bool:
        """Whether the throughput that was aimed at is reached."""
        return self.interval <= self.target_cycles

    @property
    def fits(self) -> bool:
        """Whether the weights fit the fabric's block memories."""
        return self.block_memories <= self.fabric.block_memories

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "network": self.network,
            "fabric": self.fabric.name,
            "interval_cycles": self.interval,
            "frames_per_second": self.frames_per_second,
            "latency_seconds": self.latency,
            "weight_bits": self.weight_bits,
            "block_memories": self.block_memories,
            "meets_target": self.meets_target,
            "fits": self.fits,
            "units": [unit.to_dict() for unit in self.units],
        }


def cycles(product: Product, pe: int, simd: int) -> int:
    """Cycles of a product's unit for one image.

    Raises FoldingError where `pe` does not divide the outputs or `simd` the terms of a sum.
    """
    for name, width, of in (("PE", pe, product.outputs), ("SIMD", simd, product.depth)):
        if width < 1 or of % width:
            raise FoldingError(
                f"{name} of {width} does not divide {of}; these do: {_listed(divisors(of))}"
            )
    return product.groups * product.pixels * (product.outputs // pe) * (product.depth // simd)


def divisors(number: int) -> list[int]:
    """All divisors, smallest first."""
    low = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return low + [number // n for n in reversed(low) if n * n != number]


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:12])) + (", ..." if len(numbers) > 12 else "")


def block_memories(product: Product, pe: int, simd: int) -> int:
    """Blocks of 18 Kbit for the weights of a product; FINN-R's estimate."""
    width = pe * simd * product.weight_bits
    words = product.groups * product.outputs * product.depth // (pe * simd)
    widest = _WIDEST
    for block in _BLOCKS:
        if width <= block[0] or (block is _BLOCKS[-1] and words > _WIDEST[1]):
            widest = block
            break
    return math.ceil(words / widest[1]) * math.ceil(width / widest[0])


def fold(product: Product, target: int, weight_stream_width: float) -> tuple[int, int]:
    """PE and SIMD of the narrowest unit that takes at most `target` cycles.

    SIMD first, while a PE's weights are at most `weight_stream_width` bits wide, then PE. Where the
    target is out of reach both are as large as they may be.
    """
    allowed = [
        n for n in divisors(product.depth) if n * product.weight_bits <= weight_stream_width
    ] or [1]
    simd = _first(allowed, lambda n: cycles(product, 1, n) <= target)
    pe = _first(divisors(product.outputs), lambda n: cycles(product, n, simd) <= target)
    return pe, simd


def _first(numbers: list[int], good: Callable[[int], bool]) -> int:
    return next((n for n in numbers if good(n)), numbers[-1])


def estimate(
    workload: Workload, fabric: StreamingFabric, frames_per_second: float | None = None
) -> StreamingEstimate:
    """A pipeline that meets a throughput with the least hardware, or comes as near as it can.

    `frames_per_second` is the fabric's `target_frames` if it is None. Where one unit cannot keep
    up, the others are folded to its cycles (`meets_target` is False then). Raises FoldingError for
    a throughput of 0 or above one image a cycle, and for a network without work.
    """
    frames = fabric.target_frames if frames_per_second is None else frames_per_second
    if not 0 < frames <= fabric.clock:
        raise FoldingError(
            f"{frames:g} images a second: give a number above 0, and at most one image a cycle "
            f"({fabric.clock:g})"
        )
    target = int(fabric.clock / frames)
    busy = [work for work in workload.layers if work.product or work.elementwise_total]
    if not busy:
        raise FoldingError(f"{workload.name} has no layer that computes")
    units = [_unit(work, target, fabric) for work in busy]
    slowest = max(unit.cycles for unit in units)
    if slowest > target:
        units = [_unit(work, slowest, fabric) for work in busy]
    return StreamingEstimate(workload.name, fabric, tuple(units), target)


def _unit(work: Work, target: int, fabric: StreamingFabric) -> Unit:
    p = work.product
    if p is None:
        lanes = math.ceil(work.elementwise_total / target)
        taken = math.ceil(work.elementwise_total / lanes)
        return Unit(work.name, lanes, 1, taken, work.weight_bits, 0)
    pe, simd = fold(p, target, fabric.weight_stream_width)
    # what is fused behind a product works on its outputs as they come, PE at once
    return Unit(
        work.name, pe, simd, cycles(p, pe, simd), work.weight_bits, block_memories(p, pe, simd)
    )
