"""The stages behind a convolution's sums, as Verilog: a register each, and one ROM of constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from signbit.compiler.ir import INT16_MAX, INT16_MIN, Value
from signbit.hardware.rtl.convolution import ELEMENT_BITS, Convolution
from signbit.hardware.rtl.stages import (
    Add,
    Bias,
    Change,
    Compare,
    FixedPrelu,
    Ladder,
    MultiplyShift,
    ShiftPrelu,
    ShiftSum,
)
from signbit.hardware.rtl.verilog import (
    Body,
    Net,
    popcount,
    signed,
    signed_bits,
    unsigned,
    unsigned_bits,
    vector,
    zeros,
)

_INT16 = (INT16_MIN, INT16_MAX)


@dataclass
class _Constants:
    """A stage's constants: literals where all channels agree, else fields of one ROM."""

    writer: Epilogue
    stage: int
    fields: list[tuple[str, np.ndarray, int, int]] = field(default_factory=list)

    def net(self, name: str, values: np.ndarray, channel: int, low: int, high: int) -> Net:
        """The constant of an output channel of a beat as a net that holds low..high."""
        full = f"k{self.stage}_{name}_{channel}"
        width = signed_bits(low, high)
        own = values[channel :: self.writer.conv.fold.parallel]
        if (own == own[0]).all():
            self.writer.body.number(full, low, high, signed(int(own[0]), width))
        else:
            self.fields.append((full, own, low, high))
            self.writer.late.append(f"wire signed {vector(width)}{full};")
        return Net(full, low, high)

    def of(self, name: str, values: np.ndarray, channel: int) -> Net:
        return self.net(name, values, channel, int(values.min()), int(values.max()))


class Epilogue:
    """Writes the stages into a module's body.

    Attributes:
        results: behind `write`, for each map that is kept the wires of a beat's channels.
        last: the number of the last stage.
    """

    def __init__(self, conv: Convolution, body: Body, rom: Callable[[str, list[int], int], None]):
        self.conv = conv
        self.body = body
        self.rom = rom
        self.late: list[str] = []
        self.results: dict[Value, list[str]] = {}
        self.last = len(conv.stages) - 1

    def write(self) -> None:
        conv, body = self.conv, self.body
        group_bits = unsigned_bits(conv.groups - 1)
        many = conv.groups > 1
        if many:
            names = [f"group_{i}" for i in range(len(conv.stages))]
            body.comment("the group of channels that stands at each stage")
            body.add(*(f"reg {vector(group_bits)}{name};" for name in names))
            body.add(
                "always @(posedge clk)",
                f"  if (rst) group_0 <= {unsigned(0, group_bits)};",
                f"  else if (go && valid_0) group_0 <= (group_0 == "
                f"{unsigned(conv.groups - 1, group_bits)}) ? {unsigned(0, group_bits)} : group_0 + "
                f"{unsigned(1, group_bits)};",
            )
        carried: dict[Value, list[str]] = {}
        for index, stage in enumerate(conv.stages):
            final = index == len(conv.stages) - 1
            what = type(stage.change).__name__ if stage.change else "results"
            body.comment(f"stage {index}: {what}")
            start = len(body.lines)
            self.late = []
            constants = _Constants(self, index)
            written = {
                write.value: [
                    self._write(constants, write, index, p) for p in range(conv.fold.parallel)
                ]
                for write in stage.writes
            }
            following = []
            if stage.change is not None:
                after = conv.stages[index + 1]
                for p in range(conv.fold.parallel):
                    v = Net(f"v{index}_{p}", stage.low, stage.high)
                    result = self._change(constants, stage.change, v, p)
                    register = body.register(f"v{index + 1}_{p}", after.low, after.high)
                    following.append((register.name, result.to(register.width)))
            own = body.lines[start:]
            del body.lines[start:]
            body.add(*self.late)
            self._stage_rom(constants, index, group_bits)
            body.lines += own
            if final:
                self.results = {
                    value: [name for name, _ in nets] for value, nets in written.items()
                } | carried
                return
            moves = [*following]
            after_carried = {}
            for value, nets in (carried | written).items():
                bits = ELEMENT_BITS[value.type]
                after_carried[value] = []
                for p, net in enumerate(nets):
                    source = net if isinstance(net, str) else net[0]
                    name = f"kept{index}_{list(conv.kept).index(value)}_{p}"
                    body.add(f"reg {vector(bits)}{name};")
                    moves.append((name, source))
                    after_carried[value].append(name)
            carried = after_carried
            if many:
                moves.append((f"group_{index + 1}", f"group_{index}"))
            body.add(
                "always @(posedge clk)",
                f"  if (rst) valid_{index + 1} <= 1'b0;",
                f"  else if (go) valid_{index + 1} <= valid_{index};",
                "always @(posedge clk)",
                "  if (go) begin",
                *(f"    {name} <= {expression};" for name, expression in moves),
                "  end",
            )

    def _stage_rom(self, constants: _Constants, index: int, group_bits: int) -> None:
        if not constants.fields:
            return
        widths = [signed_bits(low, high) for _, _, low, high in constants.fields]
        words = [0] * self.conv.groups
        at = 0
        for (_, values, _, _), width in zip(constants.fields, widths, strict=True):
            for group, value in enumerate(values):
                words[group] |= (int(value) & ((1 << width) - 1)) << at
            at += width
        self.rom(f"constants_{index}", words, at)
        word = f"word_{index}"
        self.body.add(f"wire {vector(at)}{word} = constants_{index}[group_{index}];")
        at = 0
        for (name, *_), width in zip(constants.fields, widths, strict=True):
            part = f"[{at + width - 1}:{at}]" if at + width > 1 or len(widths) > 1 else ""
            self.body.add(f"assign {name} = {word}{part};")
            at += width

    def _write(self, constants: _Constants, write, index: int, p: int) -> tuple[str, int]:
        stage, body = self.conv.stages[index], self.body
        v = Net(f"v{index}_{p}", stage.low, stage.high)
        bits = ELEMENT_BITS[write.value.type]
        number = list(self.conv.kept).index(write.value)
        name = f"result{number}_{p}"
        if isinstance(write, Compare):
            low = constants.net(f"low{number}", write.low, p, v.low, v.high)
            inside = f"{v.name} >= {low.name}"
            if write.high is not None:
                high = constants.net(f"high{number}", write.high, p, v.low, v.high)
                inside = f"({inside} && {v.name} <= {high.name})"
            if write.flip.any():
                flip = constants.net(f"flip{number}", -write.flip.astype(np.int64), p, -1, 0)
                inside = f"({inside}) ^ {flip.name}"
            body.add(f"wire {name} = {inside};")
            return name, 1
        kept = v.to(bits) if v.width <= bits else f"{v.name}[{bits - 1}:0]"
        if v.width > bits:  # numbers of 8 bits without a sign have nine with it
            body.unused(f"{v.name}[{v.width - 1}:{bits}]", f"{name}_unused")
        body.add(f"wire {vector(bits)}{name} = {kept};")
        return name, bits

    def _change(self, constants: _Constants, change: Change, v: Net, p: int) -> Net:
        return _CHANGES[type(change)](self, constants, change, v, p)

    def _sum_of_two(self, name: str, a: Net, b: Net) -> Net:
        low, high = a.low + b.low, a.high + b.high
        width = signed_bits(low, high)
        return self.body.number(name, low, high, f"{a.to(width)} + {b.to(width)}")

    def _bias(self, constants: _Constants, change: Bias, v: Net, p: int) -> Net:
        return self._sum_of_two(f"{v.name}_biased", v, constants.of("bias", change.values, p))

    def _shifted(self, constants: _Constants, change: ShiftSum, v: Net, p: int) -> Net:
        """The exact sum of signed shifts."""
        total = None
        for digit in range(change.shifts.shape[1]):
            shifts, signs = change.shifts[:, digit], change.signs[:, digit]
            if not signs.any():
                continue
            used = shifts[signs != 0]
            most, least = int(used.max()), int(used.min())
            term = self._shift(
                constants, v, np.where(signs != 0, shifts, most), most, least, digit, p
            )
            if not signs.all():
                on = constants.net(f"on{digit}", -(signs != 0).astype(np.int64), p, -1, 0)
                gated = f"{term.name} & {{{term.width}{{{on.name}}}}}"
                term = self.body.number(f"{term.name}_on", term.low, term.high, gated)
            if (signs < 0).any():
                minus = constants.net(f"minus{digit}", -(signs < 0).astype(np.int64), p, -1, 0)
                high = max(-term.low, term.high)
                width = signed_bits(-high, high)
                flipped = (
                    f"({term.to(width)} ^ {{{width}{{{minus.name}}}}}) + "
                    f"$signed({{{zeros(width - 1)}{minus.name}}})"
                )
                term = self.body.number(f"{term.name}_signed", -high, high, flipped)
            total = term if total is None else self._sum_of_two(f"{v.name}_sum{digit}", total, term)
        if total is None:
            return self.body.number(f"{v.name}_none", 0, 0, "1'sh0")
        return total

    def _shift(
        self, constants: _Constants, v: Net, shifts: np.ndarray, most: int, least: int, digit: int,
        p: int,
    ) -> Net:  # fmt: skip
        """v shifted by a channel's number of places: by the most of all, then right."""
        name = f"{v.name}_digit{digit}"
        x = v
        if most > 0:
            left = f"{{{v.name}, {most}'b0}}"
            x = self.body.number(f"{name}_left", v.low << most, v.high << most, left)
        elif most < 0:
            x = self._shifted_down(f"{name}_right", v, -most)
        if most == least:
            return x
        # the bits of an unsigned number of places, as a signed constant
        bits = unsigned_bits(most - least)
        half = 1 << (bits - 1)
        amounts = (most - shifts + half) % (2 * half) - half
        places = constants.net(f"places{digit}", amounts, p, -half, half - 1)
        moved = f"{x.name} >>> $unsigned({places.name})"
        return self.body.number(f"{name}_shifted", x.low, x.high, moved)

    def _shifted_down(self, name: str, x: Net, places: int) -> Net:
        """x shifted right by a constant."""
        places = min(places, x.width - 1)
        self.body.unused(f"{x.name}[{places - 1}:0]", f"{name}_unused")
        high = (1 << (x.width - places - 1)) - 1
        return self.body.number(name, -high - 1, high, f"{x.name}[{x.width - 1}:{places}]")

    def _shift_sum(self, constants: _Constants, change: ShiftSum, v: Net, p: int) -> Net:
        return self.body.clip(f"{v.name}_sat", self._shifted(constants, change, v, p), *_INT16)

    def _shift_prelu(self, constants: _Constants, change: ShiftPrelu, v: Net, p: int) -> Net:
        u = self._sum_of_two(f"{v.name}_in", v, constants.of("before", change.before, p))
        u = self.body.clip(f"{v.name}_u", u, *_INT16)
        negative = self._shift_sum(constants, change.negative, u, p)
        return self._chosen(constants, u, negative, change.after, v, p)

    def _chosen(
        self, constants: _Constants, u: Net, negative: Net, after: np.ndarray, v: Net, p: int
    ) -> Net:
        """u where it is not negative, else the other, and a constant added."""
        low, high = min(0, negative.low), max(u.high, negative.high)
        width = max(signed_bits(low, high), u.width, negative.width)
        sign = f"{u.name}[{u.width - 1}]"
        chosen = self.body.number(
            f"{v.name}_slope", -(1 << (width - 1)), (1 << (width - 1)) - 1,
            f"{sign} ? {negative.to(width)} : {u.to(width)}",
        )  # fmt: skip
        total = self._sum_of_two(f"{v.name}_moved", chosen, constants.of("after", after, p))
        return self.body.clip(f"{v.name}_out", total, *_INT16)

    def _scaled(
        self, constants: _Constants, v: Net, factor: np.ndarray, offset: np.ndarray, shift: int,
        p: int,
    ) -> Net:  # fmt: skip
        """(v * factor + offset) >> shift."""
        m, o = constants.of("factor", factor, p), constants.of("offset", offset, p)
        corners = [a * b for a in (v.low, v.high) for b in (m.low, m.high)]
        width = v.width + m.width
        product = self.body.number(
            f"{v.name}_product", -(1 << (width - 1)), (1 << (width - 1)) - 1,
            f"{v.to(width)} * {m.to(width)}",
        )  # fmt: skip
        low, high = min(corners) + o.low, max(corners) + o.high
        full = max(width, signed_bits(low, high))
        total = self.body.number(
            f"{v.name}_total", -(1 << (full - 1)), (1 << (full - 1)) - 1,
            f"{product.to(full)} + {o.to(full)}",
        )  # fmt: skip
        return self._shifted_down(f"{v.name}_scaled", total, shift) if shift else total

    def _multiply_shift(self, constants: _Constants, change: MultiplyShift, v: Net, p: int) -> Net:
        a = change.affine
        scaled = self._scaled(constants, v, a.multiplier, a.offset, a.shift, p)
        return self.body.clip(f"{v.name}_clipped", scaled, change.low, change.high)

    def _fixed_prelu(self, constants: _Constants, change: FixedPrelu, v: Net, p: int) -> Net:
        u = self._sum_of_two(f"{v.name}_in", v, constants.of("before", change.before, p))
        u = self.body.clip(f"{v.name}_u", u, *_INT16)
        half = np.full(len(change.slope), (1 << change.shift) >> 1)
        negative = self._scaled(constants, u, change.slope, half, change.shift, p)
        negative = self.body.clip(f"{v.name}_negative", negative, *_INT16)
        return self._chosen(constants, u, negative, change.after, v, p)

    def _add(self, constants: _Constants, change: Add, v: Net, p: int) -> Net:
        bits = change.bits
        high = (1 << (bits - 1)) - 1
        part = f"add_data[{(p + 1) * bits - 1}:{p * bits}]"
        other = self.body.number(f"{v.name}_addend", -high - 1, high, part)
        total = self._sum_of_two(f"{v.name}_added", v, other)
        return total if bits == 4 else self.body.clip(f"{v.name}_sat", total, *_INT16)

    def _ladder(self, constants: _Constants, change: Ladder, v: Net, p: int) -> Net:
        """Compares of v itself: -v >= cut is not v >= 1 - cut, and the count turns round."""
        cuts = change.cuts
        at = np.where(cuts.falling[:, None], 1 - cuts.at, cuts.at)
        reached = []
        for j in range(at.shape[1]):
            cut = constants.net(f"cut{j}", at[:, j], p, v.low, v.high + 1)
            width = max(cut.width, v.width)
            reached.append(f"{v.to(width)} >= {cut.to(width)}")
        name = f"{v.name}_reached"
        self.body.add(f"wire [14:0] {name} = {{{', '.join(reversed(reached))}}};")
        count = popcount(self.body, name, 15, 4)
        if cuts.falling.any():
            falling = constants.net("falling", -cuts.falling.astype(np.int64), p, -1, 0)
            self.body.add(f"wire [3:0] {v.name}_level = {count} ^ {{4{{{falling.name}}}}};")
            count = f"{v.name}_level"
        # counted from -8: the highest bit turned is the two's complement
        return self.body.number(f"{v.name}_four", -8, 7, f"{{~{count}[3], {count}[2:0]}}")


_CHANGES = {
    Bias: Epilogue._bias,
    ShiftSum: Epilogue._shift_sum,
    ShiftPrelu: Epilogue._shift_prelu,
    Ladder: Epilogue._ladder,
    MultiplyShift: Epilogue._multiply_shift,
    FixedPrelu: Epilogue._fixed_prelu,
    Add: Epilogue._add,
}
