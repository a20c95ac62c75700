"""Energy of a network: operations and memory accesses, each as a range from low to high.

A table (a preset of kind `energy`) has the picojoules of single operations and accesses in one
technology. From these:

* A multiply-accumulate is a multiplication and an addition to a 32-bit sum. One of two bits is an
  XNOR and a share of a popcount; a bit with an integer, an addition; a bit with a real number, a
  real addition. Other integers than 8-bit ones multiply at the 8-bit figure times the product of
  their widths over 64 (low, our estimate) to the next figure that the table has (high).
* Element-wise operations do not say how wide their numbers are: low is the narrowest integer
  (8 bits), high a float32. A comparison and a conversion are an addition; a look-up reads 8 to 32
  bits from on-chip memory.
* Every activation and parameter is written to and read from on-chip memory once: what arrays read
  again from their buffers is not known here, so that this is the least.
* `on_chip` is the memory on the chip. A layer's activations go through DRAM as well where all
  that is alive while it runs does not fit; all parameters come from DRAM for each image where
  they do not fit together with the network's activations.
* Layers of multiplication-free programs that shift and add (`conv_shift`) count as the products
  that an array makes of them.

Not counted: clocks, control, leakage, wires between units. Results compare networks, they do not
predict a chip.

Imports NumPy only; presets need PyYAML.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from signbit.hardware import presets
from signbit.hardware.presets import UNITS, quantity, text
from signbit.hardware.workload import Product, Work, Workload

KIND = "energy"
DEFAULT = "energy-45nm"
_REAL_BITS = 32
_NUMBER = r"([\d.]+(?:[eE][-+]?\d+)?)"
_RANGE = re.compile(rf"\s*{_NUMBER}(?:\s*to\s*{_NUMBER})?\s*(\S*)\s*\Z")


@dataclass(frozen=True)
class Joules:
    """An energy between two bounds, in joules."""

    low: float = 0.0
    high: float = 0.0

    def __add__(self, other: Joules) -> Joules:
        return Joules(self.low + other.low, self.high + other.high)

    def __mul__(self, times: float) -> Joules:
        return Joules(self.low * times, self.high * times)

    def to(self, other: Joules) -> Joules:
        """From this one's lower bound to the other's upper one."""
        return Joules(self.low, other.high)

    def to_dict(self) -> dict[str, float]:
        """The bounds in microjoules, as JSON can hold them."""
        return {"low_uJ": self.low * 1e6, "high_uJ": self.high * 1e6}


class _Range:
    """Reads ``0.2 pJ`` and ``10 to 100 pJ``."""

    def read(self, value: Any) -> Joules:
        units = UNITS["energy"]
        known = ", ".join(units)
        match = _RANGE.match(str(value)) if not isinstance(value, bool) else None
        if match is None:
            raise ValueError(f"must be an energy or a range, as 10 to 100 pJ, got {value!r}")
        low, high, unit = match.groups()
        if unit not in units:
            what = f"{unit!r} is no unit of energy" if unit else "has no unit"
            raise ValueError(f"{what}: write e.g. '{low} pJ' (units: {known})")
        return self.check(Joules(float(low) * units[unit], float(high or low) * units[unit]))

    def check(self, value: Any) -> Joules:
        if not isinstance(value, Joules):
            raise ValueError(f"must be Joules(low, high), got {value!r}")
        if not 0 < value.low <= value.high < math.inf:
            raise ValueError(f"must be above 0 and go upwards, got {value.low} to {value.high} J")
        return value


_ENERGY = {"reader": _Range()}


@dataclass(frozen=True)
class EnergyTable:
    """Energies of single operations in one technology.

    Attributes:
        name: of the preset.
        node: the technology, in words.
        integer_add_8, integer_add_32: additions of integers.
        integer_multiply_8, integer_multiply_32: multiplications of integers.
        float_add_32, float_multiply_32: of float32.
        access_width: bits that a memory access brings.
        sram_access, dram_access: one access, on the chip and off it.
        on_chip: bits of memory on the chip.
        xnor_popcount: a binary multiply-accumulate.
        shift, select: element-wise operations of that kind.

    A value that is not above 0 or of another kind raises PresetError with the field.
    """

    name: str = text()
    node: str = text()
    integer_add_8: Joules = field(metadata=_ENERGY)
    integer_add_32: Joules = field(metadata=_ENERGY)
    integer_multiply_8: Joules = field(metadata=_ENERGY)
    integer_multiply_32: Joules = field(metadata=_ENERGY)
    float_add_32: Joules = field(metadata=_ENERGY)
    float_multiply_32: Joules = field(metadata=_ENERGY)
    access_width: float = quantity("memory")
    sram_access: Joules = field(metadata=_ENERGY)
    dram_access: Joules = field(metadata=_ENERGY)
    on_chip: float = quantity("memory")
    xnor_popcount: Joules = field(metadata=_ENERGY)
    shift: Joules = field(metadata=_ENERGY)
    select: Joules = field(metadata=_ENERGY)

    def __post_init__(self) -> None:
        presets.check_fields(self, self.name)

    @classmethod
    def load(cls, name: str | Path = DEFAULT) -> EnergyTable:
        """A table by its preset's name or its file's path; see :func:`presets.load`."""
        return presets.load(name, cls, KIND)

    def mac(self, product: Product) -> Joules:
        """One multiply-accumulate of a product."""
        bits = sorted((product.weight_bits, product.input_bits))
        if bits[1] == 1:
            return self.xnor_popcount
        if bits[1] >= _REAL_BITS:
            added = self.float_add_32
            return added if bits[0] == 1 else self.float_multiply_32 + added
        if bits[0] == 1:
            return self.integer_add_32
        return self._multiplication(*bits) + self.integer_add_32

    def _multiplication(self, narrow: int, wide: int) -> Joules:
        """A multiplication of two integers of more than one bit each."""
        if (narrow, wide) == (8, 8):
            return self.integer_multiply_8
        above = self.integer_multiply_8 if wide <= 8 else self.integer_multiply_32
        return (self.integer_multiply_8 * (narrow * wide / 64)).to(above)

    def operation(self, kind: str) -> Joules:
        """One element-wise operation of a kind (`signbit.hardware.workload.KINDS`)."""
        if kind in ("shift", "select"):
            return getattr(self, kind)
        if kind == "multiply":
            return self.integer_multiply_8.to(self.float_multiply_32)
        if kind == "look_up":
            return self.sram(8).to(self.sram(_REAL_BITS))
        return self.integer_add_8.to(self.float_add_32)

    def sram(self, bits: float) -> Joules:
        """Moving bits from or to on-chip memory."""
        return self.sram_access * (bits / self.access_width)

    def dram(self, bits: float) -> Joules:
        """Moving bits from or to DRAM."""
        return self.dram_access * (bits / self.access_width)


@dataclass(frozen=True)
class Energy:
    """Energy of a layer or a network, for one image.

    Attributes:
        macs: of multiply-accumulates.
        elementwise: of element-wise operations.
        sram: of on-chip memory.
        dram: of DRAM.
    """

    macs: Joules = field(default_factory=Joules)
    elementwise: Joules = field(default_factory=Joules)
    sram: Joules = field(default_factory=Joules)
    dram: Joules = field(default_factory=Joules)

    def __add__(self, other: Energy) -> Energy:
        return Energy(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def total(self) -> Joules:
        """All of it."""
        return self.macs + self.elementwise + self.sram + self.dram

    def to_dict(self) -> dict[str, dict[str, float]]:
        """In microjoules, as JSON can hold it."""
        parts = {f.name: getattr(self, f.name).to_dict() for f in fields(self)}
        return parts | {"total": self.total.to_dict()}


def layer_energies(workload: Workload, table: EnergyTable) -> list[Energy]:
    """The energy of every layer of a network, for one image."""
    parameters = sum(layer.weight_bits for layer in workload.layers)
    kept = parameters + workload.peak_activation_bits <= table.on_chip
    return [_layer(layer, table, kept) for layer in workload.layers]


def _layer(layer: Work, table: EnergyTable, kept: bool) -> Energy:
    activations = layer.input_bits + layer.output_bits
    off_chip = 0 if kept else layer.weight_bits
    if max(layer.live_bits, activations) > table.on_chip:
        off_chip += activations
    product = layer.product
    return Energy(
        macs=Joules() if product is None else table.mac(product) * product.macs,
        elementwise=total_joules(
            table.operation(kind) * number for kind, number in layer.elementwise.items()
        ),
        sram=table.sram(activations + layer.weight_bits),
        dram=table.dram(off_chip),
    )


def total_energy(energies: Iterable[Energy]) -> Energy:
    """The sum of energies."""
    return sum(energies, Energy())


def total_joules(joules: Iterable[Joules]) -> Joules:
    """The sum of ranges: bound by bound."""
    return sum(joules, Joules())
