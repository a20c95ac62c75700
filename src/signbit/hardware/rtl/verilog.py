"""Words of Verilog: sized literals, nets, and expressions whose widths agree.

Every operand of a generated expression has the width of its context, for Verilog's own extension
rules depend on the whole expression's signedness, and linters rightly complain about them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


def signed_bits(low: int, high: int) -> int:
    """The least width of a two's complement number that holds low..high."""
    return (
        max((~low if low < 0 else low).bit_length(), (~high if high < 0 else high).bit_length()) + 1
    )


def unsigned_bits(high: int) -> int:
    """The least width, 1 or more, of an unsigned number that holds 0..high."""
    return max(1, int(high).bit_length())


def signed(value: int, width: int) -> str:
    """A signed literal; its digits are the two's complement."""
    return f"{width}'sh{value & ((1 << width) - 1):x}"


def unsigned(value: int, width: int) -> str:
    """An unsigned literal."""
    return f"{width}'h{value:x}"


def identifier(name: str) -> str:
    """`name` as Verilog can call it."""
    found = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_").lower()
    return f"m_{found}" if not found or found[0].isdigit() else found


def vector(width: int) -> str:
    """The range of a declaration, with a blank behind it; nothing for one bit."""
    return "" if width == 1 else f"[{width - 1}:0] "


@dataclass(frozen=True)
class Net:
    """A declared signed number, and what it can hold."""

    name: str
    low: int
    high: int

    @property
    def width(self) -> int:
        return signed_bits(self.low, self.high)

    def to(self, width: int) -> str:
        """The number in `width` bits, at least its own, as a signed expression."""
        more = width - self.width
        if not more:
            return self.name
        top = f"{self.name}[{self.width - 1}]" if self.width > 1 else self.name
        return f"$signed({{{{{more}{{{top}}}}}, {self.name}}})"


class Body:
    """The lines of a module, as they grow."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, *lines: str) -> None:
        self.lines += [f"  {line}" if line else "" for line in lines]

    def comment(self, text: str) -> None:
        self.add("", f"// {text}")

    def number(self, name: str, low: int, high: int, expression: str) -> Net:
        """A signed wire that holds low..high; the expression has its width."""
        net = Net(name, low, high)
        self.add(f"wire signed {vector(net.width)}{name} = {expression};")
        return net

    def register(self, name: str, low: int, high: int) -> Net:
        net = Net(name, low, high)
        self.add(f"reg signed {vector(net.width)}{name};")
        return net

    def unused(self, expression: str, name: str) -> None:
        """Say that nothing reads it on purpose; the name must have "unused" in it, for linters."""
        self.add(f"wire {name} = &{{1'b0, {expression}}};")

    def clip(self, name: str, x: Net, low: int, high: int) -> Net:
        """x brought into low..high."""
        least, most = max(low, x.low), min(high, x.high)
        width = signed_bits(least, most)
        kept = f"{x.name}[{width - 1}:0]" if width < x.width else x.name
        powers = (low, high) == (-(1 << (width - 1)), (1 << (width - 1)) - 1)
        if powers and width < x.width:
            top = f"{x.name}[{x.width - 1}:{width - 1}]"
            sign = f"{x.name}[{x.width - 1}]"
            kept = f"(&{top} || ~|{top}) ? {kept} : {{{sign}, {{{width - 1}{{~{sign}}}}}}}"
            return self.number(name, least, most, kept)
        if x.high > high:
            kept = f"({x.name} > {signed(high, x.width)}) ? {signed(high, width)} : {kept}"
        if x.low < low:
            kept = f"({x.name} < {signed(low, x.width)}) ? {signed(low, width)} : {kept}"
        return self.number(name, least, most, kept)

    def text(self) -> str:
        return "\n".join(self.lines)


def module(name: str, comment: str, ports: list[str], body: str) -> str:
    """The text of a file with one module."""
    header = "\n".join(f"// {line}".rstrip() for line in comment.splitlines())
    inside = ",\n".join(f"  {port}" for port in ports)
    return f"{header}\n\nmodule {name} (\n{inside}\n);\n{body}\nendmodule\n"


def hex_lines(words: list[int], width: int) -> str:
    """Words as `$readmemh` reads them."""
    digits = -(-width // 4)
    return "".join(f"{word:0{digits}x}\n" for word in words)


def zeros(count: int) -> str:
    """The beginning of a concatenation: zeros and a comma, or nothing."""
    return f"{count}'b0, " if count > 0 else ""


def popcount(body: Body, name: str, bits: int, width: int) -> str:
    """The number of ones in a wire, in `width` bits: a tree of additions of neighbours."""
    level = [(f"{name}[{i}]" if bits > 1 else name, 1) for i in range(bits)]  # and its greatest
    depth = 0
    while len(level) > 1:
        depth += 1
        following = []
        for at in range(0, len(level) - 1, 2):
            pair = level[at : at + 2]
            most = sum(high for _, high in pair)
            wide = unsigned_bits(most)
            wire = f"{name}_{depth}_{at // 2}"
            terms = [f"{{{zeros(wide - unsigned_bits(high))}{n}}}" for n, high in pair]
            body.add(f"wire {vector(wide)}{wire} = {' + '.join(terms)};")
            following.append((wire, most))
        level = following + level[len(level) // 2 * 2 :]
    found, most = level[0]
    body.add(f"wire {vector(width)}{name}_count = {{{zeros(width - unsigned_bits(most))}{found}}};")
    return f"{name}_count"
