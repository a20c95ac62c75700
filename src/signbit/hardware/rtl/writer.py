"""One convolution and what follows on its sums, as one Verilog module and its ROMs."""

from __future__ import annotations

from signbit.hardware.rtl.convolution import Convolution, span, weight_words
from signbit.hardware.rtl.epilogue import Epilogue
from signbit.hardware.rtl.stages import Add, raw_bounds
from signbit.hardware.rtl.verilog import (
    Body,
    Net,
    hex_lines,
    module,
    popcount,
    signed,
    signed_bits,
    unsigned,
    unsigned_bits,
    vector,
    zeros,
)


def convolution_files(conv: Convolution) -> dict[str, str]:
    """The module and its ROMs, by file name."""
    return _Writer(conv).files()


class _Writer:
    """Writes one convolution."""

    def __init__(self, conv: Convolution):
        self.conv = conv
        self.body = Body()
        self.roms: dict[str, str] = {}

    def files(self) -> dict[str, str]:
        conv, body = self.conv, self.body
        self._flow()
        self._walk()
        self._fetch()
        self._sums()
        epilogue = Epilogue(conv, body, self.rom)
        epilogue.write()
        self._outputs(epilogue)
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
            matches = popcount(body, f"same_{p}", lanes, count_bits)
            part = body.register(f"part_{p}", -lanes, lanes)
            doubled = f"$signed({{{zeros(part.width - count_bits - 1)}{matches}, 1'b0}})"
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

    # --- results ---

    def _outputs(self, epilogue: Epilogue) -> None:
        conv, body, last = self.conv, self.body, epilogue.last
        if conv.groups > 1:
            body.unused(f"group_{last}", "group_unused")
        for port in conv.ports:
            if port.incoming:
                continue
            name, results = port.name, epilogue.results[port.value]
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


def _address(count: int) -> int:
    """Bits that number `count` places, at least one."""
    return max(1, (count - 1).bit_length())


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
