"""One convolution and what follows on its sums, as one Verilog module.

::

    pixels -> line buffer -> walk over the taps -> XNOR and popcount, or products
                                                        | partial sums, `parallel` channels
           weights (ROM), word by word ----------------/
                                                        v
                                                  accumulators -> epilogue stages -> pixels, beats
                                                                      ^
                                                     a map that is added (beats)

Pixels come and go whole: all channels of a place in one transfer, channel 0 at the lowest bits. Maps
of numbers that are added or kept (16 or 4 bits a channel) come and go in *beats* of `parallel`
channels, in the order in which the circuit computes them.

One word of the line buffer (a pixel) is read each cycle and `lanes` of its channels are used, so a
pixel takes `out_channels / parallel * kernel_h * kernel_w * in_channels / lanes` cycles. The whole
pipeline advances or stands still: it stands where a result has not been taken, or where a number to
be added has not come.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from signbit.compiler.ir import Node, Type, Value
from signbit.hardware.rtl.errors import CircuitError
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
    Stage,
    raw_bounds,
)
from signbit.hardware.rtl.verilog import (
    Body,
    Net,
    hex_lines,
    module,
    signed,
    signed_bits,
    unsigned,
    unsigned_bits,
    vector,
)

_INT16 = (-(1 << 15), (1 << 15) - 1)
_ELEMENT_BITS = {Type.B1: 1, Type.U8: 8, Type.I4: 4, Type.I16: 16, Type.F32: 16}


@dataclass(frozen=True)
class Fold:
    """How much of a convolution happens in one cycle.

    Attributes:
        lanes: input channels; divides them.
        parallel: output channels; divides them.
    """

    lanes: int
    parallel: int = 1


@dataclass(frozen=True)
class Port:
    """A stream with a valid/ready handshake.

    Attributes:
        name: prefix of its three signals.
        value: the map that it carries.
        incoming: whether the circuit reads it.
        element: bits of a number.
        channels: numbers of a transfer: all channels of a pixel, or those of a beat.
        shape: (C, H, W) of the map.
    """

    name: str
    value: Value
    incoming: bool
    element: int
    channels: int
    shape: tuple[int, int, int]

    @property
    def width(self) -> int:
        """Bits of a transfer."""
        return self.element * self.channels

    @property
    def transfers(self) -> int:
        """Transfers of an image."""
        channels, height, width = self.shape
        return channels // self.channels * height * width

    def declarations(self) -> list[str]:
        """The three signals in a module's head."""
        there, back = ("input ", "output") if self.incoming else ("output", "input ")
        return [
            f"{there} wire {self.name}_valid",
            f"{back} wire {self.name}_ready",
            f"{there} wire {vector(self.width)}{self.name}_data",
        ]


@dataclass(frozen=True)
class Convolution:
    """A convolution as a circuit.

    Attributes:
        name: of the module.
        node: `conv_b1` or `conv_q8`, of one group.
        stages: its epilogue.
        fold: as checked by `check_fold`.
        size: (H, W) of its input.
        rows: of the line buffer, a power of two.
    """

    name: str
    node: Node
    stages: list[Stage]
    fold: Fold
    size: tuple[int, int]
    rows: int
    ports: list[Port] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ports", list(self._ports()))

    # --- sizes ---

    def attr(self, name: str) -> int:
        return int(self.node.attrs[name])

    @property
    def out_size(self) -> tuple[int, int]:
        return out_size(self.node, self.size)

    @property
    def groups(self) -> int:
        """Beats of a pixel."""
        return self.attr("out_channels") // self.fold.parallel

    @property
    def slices(self) -> int:
        return self.attr("in_channels") // self.fold.lanes

    @property
    def steps(self) -> int:
        """Cycles of a sum."""
        return self.attr("kernel_h") * self.attr("kernel_w") * self.slices

    @property
    def interval(self) -> int:
        """Cycles between two output pixels."""
        return self.groups * self.steps

    @property
    def binary(self) -> bool:
        return self.node.op == "conv_b1"

    @property
    def element(self) -> int:
        """Bits of an input channel, and of a weight."""
        return 1 if self.binary else 8

    # --- ports ---

    def _ports(self) -> Iterable[Port]:
        channels = self.attr("in_channels")
        yield Port("in", self.node.inputs[0], True, self.element, channels, (channels, *self.size))
        for value in self.added:
            yield self._beats("add", value, True)
        for value in self.kept:
            if value.type in (Type.B1, Type.U8):
                shape = (value.channels, *self.out_size)
                bits = _ELEMENT_BITS[value.type]
                name = "out" if value.type == Type.U8 else "bits"
                yield Port(name, value, False, bits, value.channels, shape)
            else:
                yield self._beats("stream", value, False)

    def _beats(self, name: str, value: Value, incoming: bool) -> Port:
        bits = _ELEMENT_BITS[value.type]
        return Port(
            name, value, incoming, bits, self.fold.parallel, (value.channels, *self.out_size)
        )

    @property
    def added(self) -> list[Value]:
        return [stage.change.value for stage in self.stages if isinstance(stage.change, Add)]

    @property
    def kept(self) -> list[Value]:
        return [write.value for stage in self.stages for write in stage.writes]

    # --- text ---

    def files(self) -> dict[str, str]:
        """The module and its ROMs, by file name."""
        return _Writer(self).files()


def out_size(node: Node, size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of a convolution's output."""
    return tuple(
        (length + 2 * node.attrs[f"pad_{axis}"] - span(node, axis)) // node.attrs[f"stride_{axis}"]
        + 1
        for axis, length in zip("hw", size, strict=True)
    )


def span(node: Node, axis: str) -> int:
    """Rows or columns that a window covers."""
    return int(node.attrs[f"dilation_{axis}"] * (node.attrs[f"kernel_{axis}"] - 1) + 1)


def rows_needed(node: Node, lead: int = 0) -> int:
    """Rows of a line buffer: a window and what comes while it is read, or `lead` rows behind it.

    A power of two, so that the lowest bits of a row's number are its place.
    """
    rows = max(span(node, "h") + int(node.attrs["stride_h"]), lead + 1)
    return 1 << (rows - 1).bit_length()


def check_fold(node: Node, fold: Fold, size: tuple[int, int]) -> None:
    """Raises CircuitError, naming layer and number, for what has no circuit."""
    attrs, path = node.attrs, node.path
    if attrs["groups"] != 1:
        raise CircuitError(
            f"{path}: a grouped convolution ({attrs['groups']} groups) has no circuit: make one of "
            "each group's layer"
        )
    for what, number, channels in (
        ("lanes", fold.lanes, attrs["in_channels"]),
        ("parallel", fold.parallel, attrs["out_channels"]),
    ):
        side = "input" if what == "lanes" else "output"
        if number < 1 or channels % number:
            fitting = [n for n in range(1, channels + 1) if channels % n == 0]
            raise CircuitError(
                f"{path}: {what} must divide its {channels} {side} channels, got {number}; "
                f"possible: {', '.join(map(str, fitting))}"
            )
    if min(size) < 1 or min(out_size(node, size)) < 1:
        raise CircuitError(
            f"{path}: an image of {size[0]}x{size[1]} leaves no output pixel: give a larger --size"
        )


# --- writing ---


@dataclass
class _Constants:
    """A stage's constants: literals where all channels agree, else fields of one ROM."""

    writer: _Writer
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


class _Writer:
    def __init__(self, conv: Convolution):
        self.conv = conv
        self.body = Body()
        self.late: list[str] = []
        self.roms: dict[str, str] = {}

    def files(self) -> dict[str, str]:
        conv, body = self.conv, self.body
        self._flow()
        self._walk()
        self._fetch()
        self._sums()
        self._epilogue()
        self._outputs()
        ports = ["input  wire clk", "input  wire rst"]
        ports += [line for port in conv.ports for line in port.declarations()]
        return {f"{conv.name}.v": module(conv.name, self._about(), ports, body.text())} | self.roms

    def _about(self) -> str:
        conv, a = self.conv, self.conv.node.attrs
        (h, w), (oh, ow) = conv.size, conv.out_size
        kind = "binary" if conv.binary else "8-bit"
        return (
            f"{conv.node.path}: {kind} convolution {a['kernel_h']}x{a['kernel_w']}, stride "
            f"{a['stride_h']}x{a['stride_w']}, {a['in_channels']}x{h}x{w} -> "
            f"{a['out_channels']}x{oh}x{ow}\n"
            f"{conv.fold.lanes} lanes x {conv.fold.parallel} output channels a cycle, "
            f"{conv.interval} cycles an output pixel. Written by signbit; docs/circuits.md."
        )

    def rom(self, name: str, words: list[int], width: int) -> None:
        """A ROM `name`; who reads it writes that."""
        file = f"{self.conv.name}_{name}.hex"
        self.roms[file] = hex_lines(words, width)
        self.body.add(f"reg {vector(width)}{name} [0:{len(words) - 1}];")
        self.body.add(f'initial $readmemh("{file}", {name});')

    # --- handshakes ---

    def _flow(self) -> None:
        conv, body = self.conv, self.body
        body.comment("the pipeline advances where all results are taken and all addends are there")
        outgoing = [port.name for port in conv.ports if not port.incoming]
        for name in outgoing:
            body.add(f"reg {name}_full;", f"wire {name}_free = !{name}_full || {name}_ready;")
            body.add(f"assign {name}_valid = {name}_full;")
        waits = [f"{name}_free" for name in outgoing]
        for index, stage in enumerate(conv.stages):
            body.add(f"reg valid_{index};")
            if isinstance(stage.change, Add):
                waits.append(f"(!valid_{index} || add_valid)")
                body.add(f"assign add_ready = go && valid_{index};")
        body.lines.insert(0, "  wire go;")
        body.add(f"assign go = {' && '.join(waits)};")

    # --- line buffer and walk ---

    def _walk(self) -> None:
        conv, body, a = self.conv, self.body, self.conv.attr
        (height, width), (out_h, out_w) = conv.size, conv.out_size
        y = signed_bits(-a("pad_h"), height + conv.rows + span(conv.node, "h"))
        x = signed_bits(-a("pad_w"), width + a("stride_w") + span(conv.node, "w"))
        row_bits, column_bits = _address(conv.rows), _address(width)
        body.comment(f"line buffer: {conv.rows} rows of {width} pixels, at {{row, column}}")
        body.add(
            f"reg {vector(conv.ports[0].width)}pixels [0:{(1 << row_bits + column_bits) - 1}];"
        )
        body.add(f"reg signed {vector(y)}rows_in;", f"reg signed {vector(x)}columns_in;")
        body.comment("top left of the window in the image, and the tap that is read")
        body.add(f"reg signed {vector(y)}top;", f"reg signed {vector(y)}row;")
        body.add(f"reg signed {vector(x)}left;", f"reg signed {vector(x)}column;")
        counts = [
            ("slice", conv.slices), ("tap_x", a("kernel_w")), ("tap_y", a("kernel_h")),
            ("group", conv.groups), ("out_x", out_w), ("out_y", out_h),
        ]  # fmt: skip
        ends = []
        for name, count in counts:
            bits = unsigned_bits(count - 1)
            if count > 1:
                body.add(f"reg {vector(bits)}{name};")
                ends.append(f"{name} == {unsigned(count - 1, bits)}")
        previous = "1'b1"
        for name, count in counts:
            at_end = f"{name} == {unsigned(count - 1, unsigned_bits(count - 1))}"
            own = f"{previous} && {at_end}" if count > 1 else previous
            own = own.removeprefix("1'b1 && ")
            body.add(f"wire {name}_ends = {own};")
            previous = f"{name}_ends"
        body.comment("all that a window sees has come; behind the last one all of the image")
        reach_y, reach_x = span(conv.node, "h") - 1, span(conv.node, "w") - 1
        body.add(
            f"wire signed {vector(y)}reach_y = top + {signed(reach_y, y)};",
            f"wire signed {vector(x)}reach_x = left + {signed(reach_x, x)};",
            f"wire signed {vector(y)}need_y = (reach_y > {signed(height - 1, y)}) ? "
            f"{signed(height - 1, y)} : reach_y;",
            f"wire signed {vector(x)}need_x = (reach_x > {signed(width - 1, x)}) ? "
            f"{signed(width - 1, x)} : reach_x;",
            f"wire complete = rows_in == {signed(height, y)};",
            "wire arrived = complete || (!out_y_ends && (rows_in > need_y || "
            "(rows_in == need_y && columns_in > need_x)));",
            f"assign in_ready = !complete && rows_in < top + {signed(conv.rows, y)};",
            "wire step = go && arrived;",
        )
        row_in = f"rows_in[{row_bits - 1}:0]"
        column_in = f"columns_in[{column_bits - 1}:0]"
        body.add(
            "always @(posedge clk)",
            f"  if (in_valid && in_ready) pixels[{{{row_in}, {column_in}}}] <= in_data;",
            "always @(posedge clk)",
            "  if (rst || (step && out_y_ends)) begin",
            f"    rows_in <= {signed(0, y)};",
            f"    columns_in <= {signed(0, x)};",
            "  end else if (in_valid && in_ready) begin",
            f"    if (columns_in == {signed(width - 1, x)}) begin",
            f"      columns_in <= {signed(0, x)};",
            f"      rows_in <= rows_in + {signed(1, y)};",
            "    end else",
            f"      columns_in <= columns_in + {signed(1, x)};",
            "  end",
        )
        body.add("always @(posedge clk)", "  if (rst) begin")
        body.add(*(f"    {n} <= {unsigned(0, unsigned_bits(c - 1))};" for n, c in counts if c > 1))
        start_y, start_x = signed(-a("pad_h"), y), signed(-a("pad_w"), x)
        body.add(f"    top <= {start_y};", f"    row <= {start_y};")
        body.add(f"    left <= {start_x};", f"    column <= {start_x};")
        body.add("  end else if (step) begin")
        before = None
        for name, count in counts:
            if count > 1:
                bits = unsigned_bits(count - 1)
                more = f"{name}_ends ? {unsigned(0, bits)} : {name} + {unsigned(1, bits)}"
                when = f"if ({before}_ends) " if before else ""
                body.add(f"    {when}{name} <= {more};")
            before = name
        body.add(
            "    if (group_ends) begin",
            f"      left <= out_x_ends ? {start_x} : left + {signed(a('stride_w'), x)};",
            f"      column <= out_x_ends ? {start_x} : left + {signed(a('stride_w'), x)};",
            "    end else if (tap_x_ends)",
            "      column <= left;",
            "    else if (slice_ends)",
            f"      column <= column + {signed(a('dilation_w'), x)};",
            "    if (out_x_ends) begin",
            f"      top <= out_y_ends ? {start_y} : top + {signed(a('stride_h'), y)};",
            f"      row <= out_y_ends ? {start_y} : top + {signed(a('stride_h'), y)};",
            "    end else if (tap_y_ends)",
            "      row <= top;",
            "    else if (tap_x_ends)",
            f"      row <= row + {signed(a('dilation_h'), y)};",
            "  end",
        )
        self.y, self.x = y, x
        self.place = f"{{row[{row_bits - 1}:0], column[{column_bits - 1}:0]}}"

    @property
    def _padded(self) -> bool:
        return self.conv.attr("pad_h") > 0 or self.conv.attr("pad_w") > 0

    # --- one pixel and one word of weights ---

    def _fetch(self) -> None:
        conv, body = self.conv, self.body
        height, width = conv.size
        lanes, parallel = conv.fold.lanes, conv.fold.parallel
        words = weight_words(conv)
        bits = unsigned_bits(len(words) - 1)
        word = lanes * parallel * conv.element
        body.comment("the tap's pixel and the weights that meet it")
        self.rom("weights", words, word)
        body.add(f"reg {vector(conv.ports[0].width)}pixel;", f"reg {vector(word)}weight;")
        body.add("reg fetched, fetched_ends;")
        if conv.slices > 1:
            body.add(f"reg {vector(unsigned_bits(conv.slices - 1))}fetched_slice;")
        if self._padded:
            body.add("reg in_image;")
        if len(words) > 1:
            body.add(
                f"reg {vector(bits)}at;",
                "always @(posedge clk)",
                f"  if (rst || (step && group_ends)) at <= {unsigned(0, bits)};",
                f"  else if (step) at <= at + {unsigned(1, bits)};",
            )
        else:
            body.add(f"wire {vector(bits)}at = {unsigned(0, bits)};")
        body.add(
            "always @(posedge clk)",
            "  if (rst) fetched <= 1'b0;",
            "  else if (go) fetched <= arrived;",
            "always @(posedge clk)",
            "  if (go) begin",
            f"    pixel <= pixels[{self.place}];",
            "    weight <= weights[at];",
            "    fetched_ends <= tap_y_ends;",
        )
        if conv.slices > 1:
            body.add("    fetched_slice <= slice;")
        if self._padded:
            inside = (
                f"row >= {signed(0, self.y)} && row < {signed(height, self.y)} && "
                f"column >= {signed(0, self.x)} && column < {signed(width, self.x)}"
            )
            body.add(f"    in_image <= {inside};")
        body.add("  end")

    # --- sums ---

    def _sums(self) -> None:
        conv, body = self.conv, self.body
        element, lanes = conv.element, conv.fold.lanes
        body.comment("the channels of this step, and their sum with the weights")
        width = element * lanes
        if conv.slices > 1:
            table = [f"pixel[{(i + 1) * width - 1}:{i * width}]" for i in range(conv.slices)]
            body.add(f"reg {vector(width)}chosen;", "always @*", "  case (fetched_slice)")
            bits = unsigned_bits(conv.slices - 1)
            for i, part in enumerate(table[:-1]):
                body.add(f"    {unsigned(i, bits)}: chosen = {part};")
            body.add(f"    default: chosen = {table[-1]};", "  endcase")
        else:
            body.add(f"wire {vector(width)}chosen = pixel;")
        if self._padded and not (conv.binary and not conv.attr("pad_value")):
            outside = self._outside(width)
            body.add(f"wire {vector(width)}seen = in_image ? chosen : {outside};")
        else:
            body.add(f"wire {vector(width)}seen = chosen;")
        low, high = raw_bounds(conv.node)
        part = self._binary_parts() if conv.binary else self._products()
        body.add("reg summed, summed_ends, fresh;")
        sums = [body.register(f"v0_{p}", low, high) for p in range(conv.fold.parallel)]
        body.add(
            "always @(posedge clk)",
            "  if (rst) begin",
            "    summed <= 1'b0;",
            "    fresh <= 1'b1;",
            "    valid_0 <= 1'b0;",
            "  end else if (go) begin",
            "    summed <= fetched;",
            "    if (summed) fresh <= summed_ends;",
            "    valid_0 <= summed && summed_ends;",
            "  end",
            "always @(posedge clk)",
            "  if (go) begin",
            "    summed_ends <= fetched_ends;",
        )
        for p, v in enumerate(sums):
            name, expression = part[p]
            body.add(f"    {name.name} <= {expression};")
            start = signed(0, v.width)
            body.add(
                f"    if (summed) {v.name} <= (fresh ? {start} : {v.name}) + {name.to(v.width)};"
            )
        body.add("  end")

    def _outside(self, width: int) -> str:
        """What a tap outside of the image sees."""
        if self.conv.binary:
            return f"{{{width}{{1'b{int(self.conv.attr('pad_value') > 0)}}}}}"
        zero = unsigned(self.conv.attr("zero_point"), 8)
        return f"{{{self.conv.fold.lanes}{{{zero}}}}}"

    def _binary_parts(self) -> list[tuple[Net, str]]:
        conv, body, lanes = self.conv, self.body, self.conv.fold.lanes
        found = []
        count_bits = unsigned_bits(lanes)
        for p in range(conv.fold.parallel):
            body.add(
                f"wire {vector(lanes)}same_{p} = seen ~^ weight[{(p + 1) * lanes - 1}:{p * lanes}];"
                if lanes > 1
                else f"wire same_{p} = seen ~^ weight{f'[{p}]' if conv.fold.parallel > 1 else ''};"
            )
            matches = _popcount(body, f"same_{p}", lanes, count_bits)
            part = body.register(f"part_{p}", -lanes, lanes)
            doubled = f"$signed({{{_zeros(part.width - count_bits - 1)}{matches}, 1'b0}})"
            value = f"{doubled} - {signed(lanes, part.width)}"
            if self._padded and not conv.attr("pad_value"):
                value = f"in_image ? {value} : {signed(0, part.width)}"
            found.append((part, value))
        return found

    def _products(self) -> list[tuple[Net, str]]:
        conv, body, lanes = self.conv, self.body, self.conv.fold.lanes
        found = []
        for p in range(conv.fold.parallel):
            terms = []
            for lane in range(lanes):
                at = (p * lanes + lane) * 8
                a = f"$signed({{8'b0, seen[{lane * 8 + 7}:{lane * 8}]}})"
                w = f"$signed({{{{8{{weight[{at + 7}]}}}}, weight[{at + 7}:{at}]}})"
                terms.append(
                    body.number(f"product_{p}_{lane}", -255 * 128, 255 * 128, f"{a} * {w}")
                )
            total = _tree(body, terms, f"products_{p}", *raw_bounds(conv.node))
            part = body.register(f"part_{p}", total.low, total.high)
            found.append((part, total.name))
        return found

    # --- epilogue ---

    def _epilogue(self) -> None:
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
                self._last = index
                return
            moves = [*following]
            after_carried = {}
            for value, nets in (carried | written).items():
                bits = _ELEMENT_BITS[value.type]
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
        bits = _ELEMENT_BITS[write.value.type]
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
                    f"$signed({{{_zeros(width - 1)}{minus.name}}})"
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
        """The compares are on v itself: -v >= cut is not v >= 1 - cut, and the count turns round."""
        cuts = change.cuts
        at = np.where(cuts.falling[:, None], 1 - cuts.at, cuts.at)
        reached = []
        for j in range(at.shape[1]):
            cut = constants.net(f"cut{j}", at[:, j], p, v.low, v.high + 1)
            width = max(cut.width, v.width)
            reached.append(f"{v.to(width)} >= {cut.to(width)}")
        name = f"{v.name}_reached"
        self.body.add(f"wire [14:0] {name} = {{{', '.join(reversed(reached))}}};")
        count = _popcount(self.body, name, 15, 4)
        if cuts.falling.any():
            falling = constants.net("falling", -cuts.falling.astype(np.int64), p, -1, 0)
            self.body.add(f"wire [3:0] {v.name}_level = {count} ^ {{4{{{falling.name}}}}};")
            count = f"{v.name}_level"
        # counted from -8: the highest bit turned is the two's complement
        return self.body.number(f"{v.name}_four", -8, 7, f"{{~{count}[3], {count}[2:0]}}")

    # --- results ---

    def _outputs(self) -> None:
        conv, body, last = self.conv, self.body, self._last
        if conv.groups > 1:
            body.unused(f"group_{last}", "group_unused")
        for port in conv.ports:
            if port.incoming:
                continue
            name, results = port.name, self.results[port.value]
            beat = "{" + ", ".join(reversed(results)) + "}" if len(results) > 1 else results[0]
            body.comment(f"results: {name}")
            body.add(f"reg {vector(port.width)}{name}_kept;", f"assign {name}_data = {name}_kept;")
            whole, beat_bits = port.width, port.element * conv.fold.parallel
            full = "1'b1"
            if whole > beat_bits:  # a pixel is shifted together, its first channels going lowest
                beat = f"{{{beat}, {name}_kept[{whole - 1}:{beat_bits}]}}"
                bits = unsigned_bits(conv.groups - 1)
                full = f"group_{last} == {unsigned(conv.groups - 1, bits)}"
            body.add(
                "always @(posedge clk)",
                f"  if (go && valid_{last}) {name}_kept <= {beat};",
                "always @(posedge clk)",
                f"  if (rst) {name}_full <= 1'b0;",
                f"  else if (go && valid_{last}) {name}_full <= {full};",
                f"  else if ({name}_ready) {name}_full <= 1'b0;",
            )


_CHANGES = {
    Bias: _Writer._bias,
    ShiftSum: _Writer._shift_sum,
    ShiftPrelu: _Writer._shift_prelu,
    Ladder: _Writer._ladder,
    MultiplyShift: _Writer._multiply_shift,
    FixedPrelu: _Writer._fixed_prelu,
    Add: _Writer._add,
}


def _address(count: int) -> int:
    """Bits that number `count` places, at least one."""
    return max(1, (count - 1).bit_length())


def _zeros(count: int) -> str:
    """The beginning of a concatenation: zeros and a comma, or nothing."""
    return f"{count}'b0, " if count > 0 else ""


def _popcount(body: Body, name: str, bits: int, width: int) -> str:
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
            terms = [f"{{{_zeros(wide - unsigned_bits(high))}{n}}}" for n, high in pair]
            body.add(f"wire {vector(wide)}{wire} = {' + '.join(terms)};")
            following.append((wire, most))
        level = following + level[len(level) // 2 * 2 :]
    found, most = level[0]
    body.add(
        f"wire {vector(width)}{name}_count = {{{_zeros(width - unsigned_bits(most))}{found}}};"
    )
    return f"{name}_count"


def _tree(body: Body, terms: list[Net], name: str, least: int, most: int) -> Net:
    """The sum of signed numbers, which no sum of some of them leaves: a tree of additions."""
    depth = 0
    while len(terms) > 1:
        depth += 1
        following = []
        for at in range(0, len(terms) - 1, 2):
            a, b = terms[at : at + 2]
            low, high = max(a.low + b.low, least), min(a.high + b.high, most)
            width = signed_bits(low, high)
            total = f"{a.to(width)} + {b.to(width)}"
            following.append(body.number(f"{name}_{depth}_{at // 2}", low, high, total))
        terms = following + terms[len(terms) // 2 * 2 :]
    return terms[0]


def weight_words(conv: Convolution) -> list[int]:
    """The weights as the ROM holds them: word by word as the walk meets them.

    A word has `parallel` channels of `lanes` weights each, a weight +1 as the bit 1, or 8 bits in
    two's complement; the first of all at the lowest bits.
    """
    weight = conv.node.params["weight"]
    outputs, inputs = weight.shape[:2]
    bits = (weight > 0).astype(np.uint8)[..., None]
    if not conv.binary:
        bits = np.unpackbits(weight.view(np.uint8)[..., None], axis=-1, bitorder="little")
    parallel, lanes = conv.fold.parallel, conv.fold.lanes
    kernel = weight.shape[2:]
    shape = (outputs // parallel, parallel, inputs // lanes, lanes, *kernel, conv.element)
    ordered = bits.reshape(shape).transpose(0, 4, 5, 2, 1, 3, 6)  # group, taps, slice; channel...
    packed = np.packbits(ordered.reshape(conv.interval, -1), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]
