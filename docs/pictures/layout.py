"""Draws layout.svg for docs/performance.md: bits in memory, and a look-up of them.

The numbers are computed here by the rules of native/kernels/binary_conv/look_up.cpp, and are those
of the page's example.

    python docs/pictures/layout.py
"""

from __future__ import annotations

from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

# Low fields are blue, high ones orange; positions are told apart by what fills their boxes.
BLUE, ORANGE, GREY, INK = "#2f6db3", "#c96f14", "#70757e", "#22262c"
GREEN, VIOLET = "#2f7d4b", "#7d4fa6"
EVEN, ODD, HALO, ONE = "#d9efdf", "#eadff4", "#d4d6da", "#4b5563"
MONO = "DejaVu Sans Mono"

WIDTH, HEIGHT, HALO_WIDTH = 4, 2, 1
STRIDE = WIDTH + HALO_WIDTH
OUTSIDE = 0x80
PIXELS = ((9, 14, 3, 10), (6, 0, 15, 5))  # nibbles: bit k is channel k
WEIGHTS = ((11, 6), (13, 8), (14, 3))  # of both output channels, for the taps -1, 0, +1
TAPS = (-1, 0, 1)


def at(position: int) -> int:
    """The byte of the nibble plane at a position, which may lie in the margin."""
    y, x = divmod(position, STRIDE)
    return PIXELS[y][x] if 0 <= y < HEIGHT and x < WIDTH else OUTSIDE


def matches(weight: int, activation: int) -> int:
    return 4 - (weight ^ activation).bit_count()


def entry(pair: tuple[int, int], activation: int) -> int:
    if activation & OUTSIDE:
        return 0
    return matches(pair[0], activation) | matches(pair[1], activation) << 4


LOOKED_UP = [
    [entry(pair, at(p + tap)) for p in (0, 1)] for pair, tap in zip(WEIGHTS, TAPS, strict=True)
]
SUMS = [sum(column) for column in zip(*LOOKED_UP, strict=True)]
WORD = SUMS[0] | SUMS[1] << 8
SHIFTED = WORD >> 4


def cell(
    axes: Axes, x: float, y: float, text: str = "", fill: str = "white", width: float = 1.0,
    height: float = 1.0, size: float = 10, colour: str = INK,
) -> None:  # fmt: skip
    """A box whose lower left corner is (x, y)."""
    axes.add_patch(Rectangle((x, y), width, height, facecolor=fill, edgecolor=INK, linewidth=0.8))
    axes.text(
        x + width / 2, y + height / 2 - 0.03, text, ha="center", va="center", fontsize=size,
        family=MONO, color=colour,
    )  # fmt: skip


def fields(axes: Axes, x: float, y: float, value: int, fill: str, width: float = 1.5) -> None:
    """A byte as its two fields, the high one left."""
    half = width / 2
    cell(axes, x, y, f"{value >> 4:X}", fill, half, colour=ORANGE, size=12)
    cell(axes, x + half, y, f"{value & 15:X}", fill, half, colour=BLUE, size=12)


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = GREY
) -> None:
    look = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6, "shrinkA": 1, "shrinkB": 1}
    axes.annotate("", end, start, arrowprops=look)


def note(
    axes: Axes, x: float, y: float, text: str, colour: str = INK, size: float = 10, **more: str
) -> None:
    axes.text(x, y, text, fontsize=size, color=colour, linespacing=1.4, **{"va": "top", **more})


def title(axes: Axes, x: float, y: float, number: int, text: str) -> None:
    axes.text(x, y, f"{number}  {text}", fontsize=12.5, weight="bold", color=INK, va="bottom")


def byte_text(value: int) -> str:
    return "80" if value & OUTSIDE else f"{value:04b}"


def fill_of(value: int) -> str:
    return HALO if value & OUTSIDE else "white"


def draw_image(axes: Axes, x: float, y: float) -> None:
    title(axes, x, y, 1, "An image: 4 channels, 4 x 2 pixels")
    for channel in range(4):
        left, top = x + 5.2 * (channel % 2), y - 2.3 - 3.2 * (channel // 2)
        note(axes, left, top + 1.2, f"channel {channel}", GREY, va="bottom")
        for row in range(HEIGHT):
            for column in range(WIDTH):
                bit = PIXELS[row][column] >> channel & 1
                fill, ink = (ONE, "white") if bit else ("white", INK)
                cell(axes, left + column, top - row + 0.1, str(bit), fill, colour=ink)
    note(axes, x, y - 7.0, "1 stands for +1, 0 for -1", GREY)


def draw_plane(axes: Axes, x: float, y: float) -> None:
    title(axes, x, y, 2, "Its nibble plane, a byte a pixel")
    for row in range(HEIGHT):
        for column in range(STRIDE):
            value = at(row * STRIDE + column)
            cell(
                axes,
                x + 1.8 * column,
                y - 2.2 - 1.1 * row,
                byte_text(value),
                fill_of(value),
                1.8,
                1.1,
            )
    note(axes, x + 8.1, y - 0.25, "halo", GREY, ha="center")
    note(
        axes, x, y - 3.8,
        "channel 3 left, channel 0 right\n"
        "80 (hex): outside. Its top bit is set, so that\nit looks up 0: it matches nothing",
    )  # fmt: skip


def draw_line(axes: Axes, x: float, y: float) -> None:
    title(axes, x, y, 3, "In memory: one line of bytes. A tap is a constant offset")
    first, last = -2, 2 * STRIDE + 1
    w, top = 1.82, y - 3.5
    place = {p: x + w * (p - first) for p in range(first, last)}
    for p in range(first, last):
        value = at(p)
        cell(axes, place[p], top, byte_text(value), fill_of(value), w, 1.1)
        note(axes, place[p] + w / 2, top + 1.45, str(p), GREY, 9, ha="center", va="center")
    spans = (
        (-2, 0, "margin"),
        (0, 4, "row 0"),
        (4, 5, "halo"),
        (5, 9, "row 1"),
        (9, last, "halo, margin"),
    )
    for start, stop, text in spans:
        left, right = place[start] + 0.1, place[stop - 1] + w - 0.1
        ticks = [top + 1.8, top + 1.95, top + 1.95, top + 1.8]
        axes.plot([left, left, right, right], ticks, color=GREY, lw=1)
        note(axes, (left + right) / 2, top + 2.1, text, GREY, ha="center", va="bottom")
    for p, colour, drop, fill in ((0, GREEN, 2.0, EVEN), (1, VIOLET, 3.8, ODD)):
        for tap in TAPS:
            nudge = 0.12 if p else -0.12  # arrows of both end side by side
            end = (place[p + tap] + w / 2 + nudge, top)
            arrow(axes, (place[p] + w / 2 + nudge, top - drop), end, colour)
        cell(axes, place[p] + (0.1 if p else -0.1), top - drop - 1, f"p = {p}", fill, w, 1.0)
    note(
        axes, place[3] + 0.5, top - 0.8,
        "Output p reads p - 1, p, p + 1 for the taps of its own row, and\n"
        "p - 6, p - 5, p - 4 for those of the row above: row_stride = 4 + 1.\n"
        "A halo serves the row before it and the row behind it.\n"
        "Lanes of a vector are neighbouring positions.",
    )  # fmt: skip


def draw_table(axes: Axes, x: float, y: float) -> None:
    title(axes, x, y, 4, "A table serves two output channels")
    pair = WEIGHTS[1]
    note(axes, x, y - 0.4, "weights of the middle tap")
    note(axes, x, y - 1.25, f"w1 = {pair[1]:04b}", ORANGE, 11, family=MONO)
    note(axes, x + 4.2, y - 1.25, f"w0 = {pair[0]:04b}", BLUE, 11, family=MONO)
    note(axes, x, y - 2.2, f"choose table {pair[1] << 4 | pair[0]:02X} (hex) of 256:")
    seen = [at(p) for p in (0, 1)]
    for index in range(16):
        left, bottom = x + 1.6 + 4.2 * (index // 8), y - 4.4 - index % 8
        fill = EVEN if index == seen[0] else ODD if index == seen[1] else "white"
        more = {"family": MONO, "va": "center", "ha": "right"}
        note(axes, left - 0.2, bottom + 0.5, f"{index:04b}", GREY, **more)
        fields(axes, left, bottom, entry(pair, index), fill)
    note(axes, x, y - 11.8, "a field counts the bits in which\nits weights and the index agree")


def draw_group(axes: Axes, x: float, y: float) -> None:
    title(axes, x, y, 5, "Three look-ups are added: a group")
    note(axes, x + 4.3, y - 0.4, "p = 0, even", GREEN, ha="center")
    note(axes, x + 8.9, y - 0.4, "p = 1, odd", VIOLET, ha="center")
    note(axes, x, y - 0.4, "tap, table", GREY)
    for k, (pair, tap) in enumerate(zip(WEIGHTS, TAPS, strict=True)):
        bottom = y - 2.7 - 1.6 * k
        name = ("left", "middle", "right")[k]
        note(axes, x, bottom + 0.5, f"{name}\n{pair[1] << 4 | pair[0]:02X}", va="center")
        for p, fill in ((0, EVEN), (1, ODD)):
            value, left = at(p + tap), x + 2.3 + 4.6 * p
            cell(axes, left, bottom, byte_text(value), fill_of(value), 1.6)
            arrow(axes, (left + 1.6, bottom + 0.5), (left + 2.5, bottom + 0.5))
            fields(axes, left + 2.5, bottom, LOOKED_UP[k][p], fill)
    bottom = y - 7.9
    axes.plot([x, x + 10.9], [bottom + 1.4, bottom + 1.4], color=INK, lw=1)
    note(axes, x, bottom + 0.5, "sum", va="center", weight="bold")
    for p, fill in ((0, EVEN), (1, ODD)):
        fields(axes, x + 4.8 + 4.6 * p, bottom, SUMS[p], fill)
    note(axes, x, bottom - 0.6, "high field: channel 1", ORANGE)
    note(axes, x + 6.0, bottom - 0.6, "low field: channel 0", BLUE)
    note(
        axes, x, bottom - 1.7,
        "3 look-ups x 4 matches = 12: a field of 4 bits\n"
        "holds them. It may not hold four look-ups.",
    )  # fmt: skip


def draw_split(axes: Axes, x: float, y: float) -> None:
    title(axes, x, y, 6, "The split, and sums of 16 bits")
    left, right = x + 6.0, x + 7.6
    note(axes, left + 0.8, y - 0.4, "odd", VIOLET, ha="center")
    note(axes, right + 0.8, y - 0.4, "even", GREEN, ha="center")
    for k, (name, value) in enumerate((("whole   += x", WORD), ("shifted += x >> 4", SHIFTED))):
        bottom = y - 2.4 - 1.3 * k
        note(axes, x, bottom + 0.5, name, va="center", family=MONO)
        for place, byte, fill in ((left, value >> 8, ODD), (right, value & 255, EVEN)):
            cell(axes, place, bottom, f"{byte:02X}", fill, 1.6, size=12)
    note(
        axes, x, y - 4.2,
        "x: a word of two bytes, shifted as one; sums\nbyte by byte, modulo 256, for 21 groups",
    )  # fmt: skip
    low_even, high_even = SUMS[0] & 15, SUMS[0] >> 4
    low_odd, high_odd = SUMS[1] & 15, SUMS[1] >> 4
    whole_odd, whole_even = WORD >> 8, WORD & 255
    shifted_odd, shifted_even = SHIFTED >> 8, SHIFTED & 255
    assert high_odd == shifted_odd
    assert low_odd == (whole_odd - 16 * high_odd) % 256
    assert high_even == (shifted_even - 16 * low_odd) % 256
    assert low_even == (whole_even - 16 * high_even) % 256
    lines = (
        ("high odd ", f"0x{shifted_odd:02X}", high_odd, ORANGE),
        ("low  odd ", f"0x{whole_odd:02X} - 16 * {high_odd}", low_odd, BLUE),
        ("high even", f"0x{shifted_even:02X} - 16 * {low_odd}", high_even, ORANGE),
        ("low  even", f"0x{whole_even:02X} - 16 * {high_even}", low_even, BLUE),
    )
    across = x + 12.2
    note(axes, across, y - 0.4, "then the sums, from the one that stands alone:")
    for k, (name, formula, value, colour) in enumerate(lines):
        text = f"{name} = {formula:<13} = {value}"
        note(axes, across, y - 1.5 - 0.9 * k, text, colour, family=MONO)
    valid = (2 * 2 * 4, 3 * 2 * 4)  # of a 3x3 convolution: taps inside the image times channels
    note(axes, across, y - 5.6, "channel 0 in 16 bits, even positions before odd ones:")
    starts = ((across, valid[0], low_even, EVEN), (across + 5.5, valid[1], low_odd, ODD))
    for place, count, add, fill in starts:
        cell(axes, place, y - 7.6, f"{-count // 2} + {add} ...", fill, 3.7)
        cell(axes, place + 3.7, y - 7.6, "...", fill, 1.8)
    note(axes, across, y - 7.9, "from -valid / 2 on, to half the dot product", GREY)


def draw() -> Figure:
    wide, high = 26, 42.6
    figure = Figure(figsize=(0.4 * wide, 0.4 * high), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, wide)
    axes.set_ylim(0, high)
    axes.axis("off")
    draw_image(axes, 0.8, 41.2)
    draw_plane(axes, 13.6, 41.2)
    draw_line(axes, 0.8, 32.6)
    draw_table(axes, 0.8, 22.8)
    draw_group(axes, 13.0, 22.8)
    draw_split(axes, 0.8, 8.9)
    arrow(axes, (10.8, 38.6), (13.2, 38.6))
    arrow(axes, (10.4, 15.4), (12.4, 15.4))
    return figure


if __name__ == "__main__":
    with rc_context({"svg.hashsalt": "layout", "svg.fonttype": "path"}):
        draw().savefig(Path(__file__).with_name("layout.svg"), metadata={"Date": None})
