"""OXBNN: binary networks by light, as its simulator computes them and as they could be computed.

OXBNN (Vatsavai et al., ISQED 2023, arXiv 2302.06405) has `units` of M waveguides with N wavelengths
each. A microring a wavelength is an XNOR gate; the photodetector at a waveguide's end counts ones,
and gathers charge over several symbols, so that parts of a long dot product need no adder. A dot
product of S terms is D = ceil(S / N) slices, one waveguide and one symbol each.

Two variants of the model, chosen by `variant` and never mixed:

``simulator-parity``
    The schedule of the authors' simulator (B_ONN_SIM) with the constants it ships: output channels
    one after the other; slices of one dot product on waveguides side by side, floor(M / D) dot
    products a unit and symbol, or one on several units where D > M; sums of parts in adders where
    floor(D / `charge_limit`) > 1; a converter (ADC) a gate in the static power; only max-pooling of
    all element-wise work. The way here from its constants to dynamic energy is our reconstruction.
``cleaned``
    Ours: all output channels at once; slices of a dot product one after the other on one waveguide,
    which is what the photodetector's charge is for; parts are added where D > `charge_limit`; a
    converter a waveguide; all element-wise work of layers without a product at the rate of pooling.

Operands of several bits are worked bit by bit, weight bits times input bits as often (ours; the
simulator knows binary layers only).

Imports NumPy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signbit.errors import SignbitError
from signbit.hardware import presets
from signbit.hardware.presets import choice, count, number, quantity, text
from signbit.hardware.workload import Product, Work, Workload

KIND = "photonic"
PARITY, CLEANED = VARIANTS = ("simulator-parity", "cleaned")


@dataclass(frozen=True)
class PhotonicAccelerator:
    """Sizes and constants of an accelerator; kept in S/s, s, W and J.

    Attributes:
        name: of the preset.
        variant: one of `VARIANTS`.
        wavelengths: N, of a waveguide.
        waveguides: M, of a unit.
        units: that there are.
        symbol_rate: at which gates work.
        charge_limit: symbols that a photodetector gathers.
        adders: for sums of parts, at work at once.
        adder_latency: of one addition.
        pool_requests: element-wise operations of the pooling unit at once.
        pool_latency: of these.
        wall_plug: electrical power over optical power of a laser.
        laser_power, ring_tuning_power, ring_switching_power, detector_power, amplifier_power,
            adc_power, dac_power, vcsel_power: of one device.
        memory_power, router_power, bus_power, io_power, activation_power: of a unit.
        ring_energy, detector_energy, amplifier_energy, adc_energy, dac_energy: of one use.
        memory_energy: of one access, of a slice's operands.

    Values out of range raise PresetError with the field.
    """

    name: str = text()
    variant: str = choice(VARIANTS)
    wavelengths: int = count()
    waveguides: int = count()
    units: int = count()
    symbol_rate: float = quantity("symbol rate")
    charge_limit: int = count()
    adders: int = count()
    adder_latency: float = quantity("time")
    pool_requests: int = count()
    pool_latency: float = quantity("time")
    wall_plug: float = number()
    laser_power: float = quantity("power")
    ring_tuning_power: float = quantity("power")
    ring_switching_power: float = quantity("power")
    detector_power: float = quantity("power")
    amplifier_power: float = quantity("power")
    adc_power: float = quantity("power")
    dac_power: float = quantity("power")
    vcsel_power: float = quantity("power")
    memory_power: float = quantity("power")
    router_power: float = quantity("power")
    bus_power: float = quantity("power")
    io_power: float = quantity("power")
    activation_power: float = quantity("power")
    ring_energy: float = quantity("energy")
    detector_energy: float = quantity("energy")
    amplifier_energy: float = quantity("energy")
    adc_energy: float = quantity("energy")
    dac_energy: float = quantity("energy")
    memory_energy: float = quantity("energy")

    def __post_init__(self) -> None:
        presets.check_fields(self, self.name)

    @classmethod
    def load(cls, name: str | Path) -> PhotonicAccelerator:
        """A preset by its name or by the path of its file; see :func:`presets.load`."""
        return presets.load(name, cls, KIND)

    @property
    def static_power(self) -> float:
        """Watts of all units at rest."""
        gates, m = self.wavelengths * self.waveguides, self.waveguides
        rings = gates + self.wavelengths if self.variant == PARITY else gates
        converters = gates if self.variant == PARITY else m
        unit = (
            self.wall_plug * self.laser_power * gates
            + (self.ring_tuning_power + self.ring_switching_power) * rings
            + (self.detector_power + self.amplifier_power + self.vcsel_power) * m
            + self.adc_power * converters
            + self.dac_power * gates
            + self.memory_power
            + self.router_power
            + self.bus_power
            + self.io_power
            + self.activation_power
        )
        return self.units * unit


@dataclass(frozen=True)
class LayerLight:
    """One layer, for one image.

    Attributes:
        name: path of the layer.
        slices: D, of a dot product; 0 without a product.
        passes: symbols that the units work.
        light: seconds of these.
        adding: seconds of adding parts.
        pooling: seconds of element-wise work.
        energy: joules beside what units take at rest.
    """

    name: str
    slices: int
    passes: int
    light: float
    adding: float
    pooling: float
    energy: float

    @property
    def seconds(self) -> float:
        """Of the layer."""
        return self.light + self.adding + self.pooling


@dataclass(frozen=True)
class PhotonicEstimate:
    """A network on a photonic accelerator, for one image, layer after layer."""

    network: str
    accelerator: PhotonicAccelerator
    layers: tuple[LayerLight, ...]

    @property
    def seconds(self) -> float:
        """Of one image."""
        return sum(layer.seconds for layer in self.layers)

    @property
    def frames_per_second(self) -> float:
        """Images a second."""
        return 1 / self.seconds

    @property
    def power(self) -> float:
        """Watts: at rest, and what one image takes over its time."""
        dynamic = sum(layer.energy for layer in self.layers) / self.seconds
        return self.accelerator.static_power + dynamic

    @property
    def frames_per_joule(self) -> float:
        """Images a second for each watt: FPS/W."""
        return self.frames_per_second / self.power

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; `variant` labels all numbers."""
        return {
            "network": self.network,
            "accelerator": self.accelerator.name,
            "variant": self.accelerator.variant,
            "seconds": self.seconds,
            "frames_per_second": self.frames_per_second,
            "power_watts": self.power,
            "static_power_watts": self.accelerator.static_power,
            "frames_per_joule": self.frames_per_joule,
            "layers": [
                {
                    "layer": each.name,
                    "slices": each.slices,
                    "passes": each.passes,
                    "seconds": each.seconds,
                    "energy_joules": each.energy,
                }
                for each in self.layers
            ],
        }


def estimate(workload: Workload, accelerator: PhotonicAccelerator) -> PhotonicEstimate:
    """Time and power of a network. Raises SignbitError for one that has nothing to do."""
    layers = tuple(_layer(work, accelerator) for work in workload.layers)
    found = PhotonicEstimate(workload.name, accelerator, layers)
    if not found.seconds:
        raise SignbitError(f"{workload.name} has no layer that the accelerator works on")
    return found


def passes(product: Product, accelerator: PhotonicAccelerator) -> int:
    """Symbols that all dot products of a layer take, one bit of each operand."""
    a, d = accelerator, slices(product, accelerator)
    channels = product.outputs * product.groups
    if a.variant == CLEANED:
        return math.ceil(channels * product.pixels / (a.units * a.waveguides)) * d
    if d <= a.waveguides:
        return channels * math.ceil(product.pixels / (a.units * (a.waveguides // d)))
    of_one = math.ceil(d / a.waveguides)  # units for one dot product
    if of_one <= a.units:
        return channels * math.ceil(product.pixels / (a.units // of_one))
    return channels * product.pixels * math.ceil(of_one / a.units)


def slices(product: Product, accelerator: PhotonicAccelerator) -> int:
    """D: symbols times waveguides of one dot product."""
    return math.ceil(product.depth / accelerator.wavelengths)


def additions(product: Product, accelerator: PhotonicAccelerator) -> int:
    """Additions of parts that the photodetectors could not gather."""
    d, limit = slices(product, accelerator), accelerator.charge_limit
    dots = product.outputs * product.groups * product.pixels
    if accelerator.variant == CLEANED:
        return dots * (math.ceil(d / limit) - 1)
    return dots * (d // limit) if d // limit > 1 else 0


def _layer(work: Work, a: PhotonicAccelerator) -> LayerLight:
    pooling = math.ceil(_pooled(work, a) / a.pool_requests) * a.pool_latency
    p = work.product
    if p is None:
        return LayerLight(work.name, 0, 0, 0.0, 0.0, pooling, 0.0)
    bits = p.weight_bits * p.input_bits
    d, symbols, added = slices(p, a), bits * passes(p, a), bits * additions(p, a)
    dots = bits * p.outputs * p.groups * p.pixels
    gates = dots * p.depth
    energy = (
        gates * (a.ring_energy + 2 * a.dac_energy)  # both operands drive a gate
        + dots * d * (a.detector_energy + a.amplifier_energy + a.memory_energy)
        + dots * a.adc_energy
    )
    adding = math.ceil(added / a.adders) * a.adder_latency
    return LayerLight(work.name, d, symbols, symbols / a.symbol_rate, adding, pooling, energy)


def _pooled(work: Work, a: PhotonicAccelerator) -> int:
    if a.variant == PARITY:
        return work.elementwise.get("compare", 0) if "max_pool" in work.op.lower() else 0
    return work.elementwise_total if work.product is None else 0
