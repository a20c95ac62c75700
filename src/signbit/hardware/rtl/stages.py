"""What follows on a convolution's sums: the epilogue of the graph as stages of a pipeline.

A stage holds at most one *change* of the running number and the *writes* that stand before the next
change. `docs/numerics.md` has the arithmetic of integer steps, which circuits have exactly.

Three things are done that the graph does not say:

* 4-bit maps become what the circuit was asked for: 15 compares, or a narrow multiplication, both
  equal to the graph's step on every sum that can occur;
* a real-valued way to 8 bits (`affine`, `prelu`, `clip`, `quant8`) becomes a multiplication by 16
  bits, an addition and a shift: where a number lies between two of the 8 bits' levels, it may
  become the other one;
* other real-valued steps become 16-bit fixed point, only where the caller asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from signbit.compiler.ir import INT16_MAX, INT16_MIN, INT32_MAX, INT32_MIN, Node, Step, Type, Value
from signbit.hardware.rtl.errors import CircuitError
from signbit.hardware.rtl.fitting import Affine, Cuts, find_cuts, fit, nearest
from signbit.hardware.rtl.verilog import signed_bits

FOUR_BITS = ("ladder", "multiply")
MULTIPLIER_BITS = 16  # of fixed-point factors

_WAYS_OUT = (
    'compile with arithmetic="integer", whose epilogues are integers, or give fraction_bits '
    "(--fraction-bits), which rounds real numbers to 16-bit fixed point"
)


# --- changes of the running number ---


@dataclass(frozen=True)
class Bias:
    """v + values."""

    values: np.ndarray


@dataclass(frozen=True)
class ShiftSum:
    """sat16(sum over d of signs * shift(v, shifts)); arrays [C, digits]."""

    shifts: np.ndarray
    signs: np.ndarray


@dataclass(frozen=True)
class ShiftPrelu:
    """u = sat16(v + before); sat16((u >= 0 ? u : shift sum of u) + after)."""

    before: np.ndarray
    negative: ShiftSum
    after: np.ndarray


@dataclass(frozen=True)
class Ladder:
    """-8 + the number of 15 cuts that u has reached, u = v, or -v of falling channels."""

    cuts: Cuts


@dataclass(frozen=True)
class MultiplyShift:
    """clip((v * multiplier + offset) >> shift, low, high)."""

    affine: Affine
    low: int
    high: int


@dataclass(frozen=True)
class FixedPrelu:
    """u = sat16(v + before); sat16((u >= 0 ? u : (u * slope + half) >> shift) + after)."""

    before: np.ndarray
    slope: np.ndarray
    shift: int
    after: np.ndarray


@dataclass(frozen=True)
class Add:
    """v + a number of the map `value`, which another port brings; saturating if it has 16 bits."""

    value: Value
    bits: int


Change = Bias | ShiftSum | ShiftPrelu | Ladder | MultiplyShift | FixedPrelu | Add


# --- writes ---


@dataclass(frozen=True)
class Compare:
    """bit = (v >= low and v <= high) != flip, to `value`; `high` None where no channel has one."""

    value: Value
    low: np.ndarray
    high: np.ndarray | None
    flip: np.ndarray


@dataclass(frozen=True)
class Keep:
    """v, to `value`."""

    value: Value


Write = Compare | Keep


@dataclass
class Stage:
    """One stage of the pipeline.

    Attributes:
        low, high: what the running number can be at its beginning.
        change: what the number becomes for the next stage, None in the last.
        writes: what is kept of the number at its beginning.
    """

    low: int
    high: int
    change: Change | None = None
    writes: list[Write] = field(default_factory=list)


# --- from the graph ---


def bounds(node: Node) -> tuple[int, int]:
    """What the sums of a convolution can be at most, all channels together."""
    weight = node.params["weight"].astype(np.int64).reshape(len(node.params["weight"]), -1)
    if node.op == "conv_b1":
        return -weight.shape[1], weight.shape[1]
    zero = node.attrs["zero_point"]
    ends = np.stack([weight * (0 - zero), weight * (255 - zero)])
    low, high = int(ends.min(0).sum(1).min()), int(ends.max(0).sum(1).max())
    return min(low, 0), max(high, 0)


def stages_of(node: Node, four_bits: str, fraction_bits: int | None) -> list[Stage]:
    """The stages behind a convolution.

    Args:
        node: `conv_b1` or `conv_q8`.
        four_bits: of `quant4_*`, one of `FOUR_BITS`.
        fraction_bits: of real numbers as fixed point, or None to refuse these.

    Raises CircuitError, naming the layer, for steps that have no circuit.
    """
    low, high = bounds(node)
    maker = _Maker(node, four_bits, fraction_bits, [Stage(low, high)])
    steps = list(node.epilogue)
    if steps and steps[-1].kind == "quant8":
        maker.requantize(steps)
    else:
        for step in steps:
            maker.take(step)
    return maker.done()


@dataclass
class _Maker:
    node: Node
    four_bits: str
    fraction_bits: int | None
    stages: list[Stage]

    @property
    def last(self) -> Stage:
        return self.stages[-1]

    def change(self, change: Change, low: int, high: int) -> None:
        self.last.change = change
        self.stages.append(Stage(low, high))

    def error(self, text: str) -> CircuitError:
        return CircuitError(f"{self.node.path}: {text}")

    def done(self) -> list[Stage]:
        if not self.last.writes:
            raise self.error("its sums are never stored, so there is nothing for a circuit to give")
        return self.stages

    def take(self, step: Step) -> None:
        handler = _INTEGER.get(step.kind) or _REAL.get(step.kind)
        if handler is None:
            known = ", ".join(sorted({*_INTEGER, *_REAL, "quant8"}))
            raise self.error(f"the step {step.kind} has no circuit; steps that have: {known}")
        real = step.kind in _REAL or (step.value is not None and step.value.type == Type.F32)
        if real and self.fraction_bits is None:
            raise self.error(f"the step {step.kind} is real-valued: {_WAYS_OUT}")
        handler(self, step)

    # --- integers ---

    def bias(self, step: Step) -> None:
        values = step.params["bias"].astype(np.int64)
        low, high = self.last.low + int(values.min()), self.last.high + int(values.max())
        if low < INT32_MIN or high > INT32_MAX:
            raise self.error("its sums with their bias can leave 32 bits, where programs wrap")
        self.change(Bias(values), low, high)

    def shift_sum(self, step: Step) -> None:
        self.change(_shift_sum(step), INT16_MIN, INT16_MAX)

    def shift_prelu(self, step: Step) -> None:
        before, after = (step.params[n].astype(np.int64) for n in ("shift_in", "shift_out"))
        self.change(ShiftPrelu(before, _shift_sum(step), after), INT16_MIN, INT16_MAX)

    def add(self, step: Step) -> None:
        if step.value.type == Type.I4:
            self.change(Add(step.value, 4), self.last.low - 8, self.last.high + 7)
        else:
            self.change(Add(step.value, 16), INT16_MIN, INT16_MAX)

    def quant4(self, step: Step) -> None:
        function = _quant4(step)
        channels = self.node.attrs["out_channels"]
        cuts = find_cuts(function, channels, range(-8, 8), self.last.low, self.last.high)
        if self.four_bits == "ladder":
            self.change(Ladder(cuts), -8, 7)
            return
        affine = fit(cuts)
        if affine is None:
            raise self.error('no multiplication gives its 4-bit map: use four_bits="ladder"')
        self.change(MultiplyShift(affine, -8, 7), -8, 7)

    def threshold(self, step: Step) -> None:
        self.compare(
            step.value,
            *(step.params[n].astype(np.int64) for n in ("low", "high")),
            step.params["flip"].astype(bool),
        )

    def compare(self, value: Value, low: np.ndarray, high: np.ndarray, flip: np.ndarray) -> None:
        """A bit; one compare a channel where that is enough."""
        least, most = self.last.low, self.last.high
        below, above = low <= least, high >= most  # bounds that no number reaches
        empty = (low > high) | (low > most) | (high < least)
        if (below | above | empty).all():
            only_high = below & ~above & ~empty
            cut = np.where(only_high, high + 1, np.where(empty | below, least, low))
            self.last.writes.append(Compare(value, cut, None, flip ^ only_high ^ empty))
            return
        low, high = np.where(empty, most, low), np.where(empty, least, high)
        clipped = np.clip(low, least, most), np.clip(high, least, most)
        self.last.writes.append(Compare(value, *clipped, flip))

    def store(self, step: Step) -> None:
        low, high = self.last.low, self.last.high
        room = {
            Type.I4: (-8, 7),
            Type.I16: (INT16_MIN, INT16_MAX),
            Type.F32: (INT16_MIN, INT16_MAX),
        }
        if step.value.type not in room:
            raise self.error(f"stores {step.value.type.name}: circuits store B1, I4, I16 and U8")
        least, most = room[step.value.type]
        if low < least or high > most:
            raise self.error(f"stores sums of {signed_bits(low, high)} bits as 16: not supported")
        self.last.writes.append(Keep(step.value))

    # --- 8 bits ---

    def requantize(self, steps: list[Step]) -> None:
        """A real-valued way from a sum to 8 bits, as one multiplication."""
        channels, last = self.node.attrs["out_channels"], steps[-1]
        for step in steps[:-1]:
            if step.kind not in _ON_THE_WAY:
                allowed = ", ".join(sorted(_ON_THE_WAY))
                raise self.error(
                    f"the step {step.kind} stands between a sum and 8 bits, where a circuit can "
                    f"have {allowed}"
                )
            slopes = step.params.get("slope")
            if slopes is not None and (slopes < 0).any():
                raise self.error("a negative slope before 8 bits is not monotone: train without")

        def function(v: np.ndarray) -> np.ndarray:
            x = v.astype(np.float32)
            for step in steps[:-1]:
                x = _ON_THE_WAY[step.kind](x, step)
            return _quant8(x, last)

        levels = int(last.attrs["levels"])
        cuts = find_cuts(function, channels, range(levels + 1), self.last.low, self.last.high)
        affine = nearest(cuts, MULTIPLIER_BITS)
        self.change(MultiplyShift(affine, 0, levels), 0, levels)
        self.last.writes.append(Keep(last.value))

    # --- real numbers as fixed point ---

    def affine(self, step: Step) -> None:
        scale, bias = (step.params[n].astype(np.float64) for n in ("scale", "bias"))
        scale = scale * 2.0**self.fraction_bits
        factors, shift = self.factors(scale, "scale")
        offset = np.rint(bias * 2.0 ** (self.fraction_bits + shift)).astype(np.int64) + _half(shift)
        self.change(
            MultiplyShift(Affine(factors, offset, shift), INT16_MIN, INT16_MAX),
            INT16_MIN,
            INT16_MAX,
        )

    def prelu(self, step: Step) -> None:
        def constant(name: str) -> np.ndarray:
            values = step.params.get(name, np.zeros(len(step.params["slope"])))
            return np.rint(values.astype(np.float64) * 2.0**self.fraction_bits).astype(np.int64)

        slope, shift = self.factors(step.params["slope"].astype(np.float64), "slope")
        change = FixedPrelu(constant("shift_in"), slope, shift, constant("shift_out"))
        self.change(change, INT16_MIN, INT16_MAX)

    def sign(self, step: Step) -> None:
        cut = np.ceil(step.params["cut"].astype(np.float64) * 2.0**self.fraction_bits)
        low = np.clip(cut, INT16_MIN, INT16_MAX + 1).astype(np.int64)
        self.compare(step.value, low, np.full_like(low, INT32_MAX), np.zeros(len(low), bool))

    def factors(self, values: np.ndarray, name: str) -> tuple[np.ndarray, int]:
        """Numbers as integers of `MULTIPLIER_BITS` bits, and the shift that they share."""
        if not np.isfinite(values).all():
            raise self.error(f"its {name} is not finite")
        peak = float(np.abs(values).max())
        limit = 2 ** (MULTIPLIER_BITS - 1) - 1
        shift = int(np.floor(np.log2(limit / peak))) if peak > 0 else 0
        if not shift >= 0:
            raise self.error(f"its {name} reaches {peak:.3g} steps: use fewer fraction_bits")
        shift = min(shift, 30)
        return np.rint(values * 2.0**shift).astype(np.int64), shift


def _half(shift: int) -> int:
    return (1 << shift) >> 1


def _shift_sum(step: Step) -> ShiftSum:
    return ShiftSum(*(step.params[name].astype(np.int64) for name in ("shifts", "signs")))


def _column(array: np.ndarray) -> np.ndarray:
    return array[:, None]


def _quant4(step: Step) -> Callable[[np.ndarray], np.ndarray]:
    p = {name: array.astype(np.int64) for name, array in step.params.items()}
    if step.kind == "quant4_shift":
        multiplier, offset = _column(p["multiplier"]), _column(p["offset"])
        return lambda v: np.clip((v * multiplier + offset) >> step.attrs["shift"], -8, 7)
    sign = _column(np.where(p["flip"] != 0, -1, 1))
    return lambda v: (p["cuts"][:, None, :] <= (v * sign)[:, :, None]).sum(2) - 8


_ON_THE_WAY: dict[str, Callable[[np.ndarray, Step], np.ndarray]] = {
    "affine": lambda x, s: x * _column(s.params["scale"]) + _column(s.params["bias"]),
    "prelu": lambda x, s: np.where(x >= 0, x, _column(s.params["slope"]) * x),
    "clip": lambda x, s: np.clip(x, np.float32(s.attrs["minimum"]), np.float32(s.attrs["maximum"])),
}


def _quant8(x: np.ndarray, step: Step) -> np.ndarray:
    q = np.rint(x * np.float32(step.attrs["inv_scale"])) + np.float32(step.attrs["zero_point"])
    return np.clip(q, np.float32(0), np.float32(step.attrs["levels"])).astype(np.int64)


_INTEGER: dict[str, Callable[[_Maker, Step], None]] = {
    "bias": _Maker.bias,
    "shift_sum": _Maker.shift_sum,
    "shift_prelu": _Maker.shift_prelu,
    "add": _Maker.add,
    "quant4_shift": _Maker.quant4,
    "quant4_ladder": _Maker.quant4,
    "threshold": _Maker.threshold,
    "store": _Maker.store,
}
_REAL: dict[str, Callable[[_Maker, Step], None]] = {
    "affine": _Maker.affine,
    "prelu": _Maker.prelu,
    "rprelu": _Maker.prelu,
    "sign": _Maker.sign,
}


# --- what fixed point does, for those who compare it with real numbers ---


def evaluate(
    stages: list[Stage], sums: np.ndarray, maps: dict[Value, np.ndarray]
) -> dict[Value, np.ndarray]:
    """What the stages write, of int64 sums [N, C, H, W]; `maps` has the maps that are added.

    For fixed point, which no graph defines; circuits of integer graphs are compared with the graph.
    """
    v, found = sums.astype(np.int64), {}
    for stage in stages:
        for write in stage.writes:
            found[write.value] = _written(write, v)
        if stage.change is not None:
            v = _changed(stage.change, v, maps)
    return found


def _spread(array: np.ndarray) -> np.ndarray:
    return array.reshape(1, -1, 1, 1)


def _sat16(v: np.ndarray) -> np.ndarray:
    return np.clip(v, INT16_MIN, INT16_MAX)


def _written(write: Write, v: np.ndarray) -> np.ndarray:
    if isinstance(write, Keep):
        return v
    inside = v >= _spread(write.low)
    if write.high is not None:
        inside &= v <= _spread(write.high)
    return (inside != _spread(write.flip)).astype(np.uint8)


def _changed(change: Change, v: np.ndarray, maps: dict[Value, np.ndarray]) -> np.ndarray:
    match change:
        case MultiplyShift(affine, low, high):
            scaled = v * _spread(affine.multiplier) + _spread(affine.offset)
            return np.clip(scaled >> affine.shift, low, high)
        case FixedPrelu(before, slope, shift, after):
            u = _sat16(v + _spread(before))
            negative = (u * _spread(slope) + _half(shift)) >> shift
            return _sat16(_sat16(np.where(u >= 0, u, negative)) + _spread(after))
        case Add(value, 16):
            return _sat16(v + maps[value])
    raise TypeError(f"{type(change).__name__} is no fixed-point change")


def with_zero_point(node: Node, stages: list[Stage]) -> list[Stage]:
    """The stages behind sums of unsigned numbers times weights, without the zero point.

    What it takes from every sum is a constant a channel, for circuits pad with the zero point.
    """
    zero = node.attrs.get("zero_point", 0)
    if not zero:
        return stages
    weight = node.params["weight"].astype(np.int64).reshape(len(node.params["weight"]), -1)
    bias = -zero * weight.sum(1)
    low, high = raw_bounds(node)
    first, rest = stages[0], stages[1:]
    if isinstance(first.change, MultiplyShift) and not first.writes:
        affine = first.change.affine
        offset = affine.offset + bias * affine.multiplier
        change = replace(first.change, affine=replace(affine, offset=offset))
        return [Stage(low, high, change), *rest]
    loose = replace(first, low=low + int(bias.min()), high=high + int(bias.max()))
    return [Stage(low, high, Bias(bias)), loose, *rest]


def raw_bounds(node: Node) -> tuple[int, int]:
    """What sums of unsigned 8-bit numbers, or of signs, with the weights can be at most."""
    if node.op == "conv_b1":
        return bounds(node)
    weight = node.params["weight"].astype(np.int64).reshape(len(node.params["weight"]), -1)
    low = int(np.minimum(weight, 0).sum(1).min()) * 255
    high = int(np.maximum(weight, 0).sum(1).max()) * 255
    return min(low, -128 * 255), max(high, 127 * 255)  # one product at least
