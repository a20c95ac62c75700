"""One convolution and what follows on its sums, as one Verilog module.

::

    pixels -> line buffer -> walk over the taps -> XNOR and popcount, or products
                                                        | partial sums, `parallel` channels
           weights (ROM), word by word ----------------/
                                                        v
                                                  accumulators -> epilogue stages -> pixels, beats
                                                                      ^
                                                     a map that is added (beats)

Pixels come and go whole: all channels of a place in one transfer, channel 0 at the lowest bits.
Maps of numbers that are added or kept (16 or 4 bits a channel) come and go in *beats* of `parallel`
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
from signbit.hardware.rtl.stages import Add, Stage
from signbit.hardware.rtl.verilog import vector

ELEMENT_BITS = {Type.B1: 1, Type.U8: 8, Type.I4: 4, Type.I16: 16, Type.F32: 16}


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
                bits = ELEMENT_BITS[value.type]
                name = "out" if value.type == Type.U8 else "bits"
                yield Port(name, value, False, bits, value.channels, shape)
            else:
                yield self._beats("stream", value, False)

    def _beats(self, name: str, value: Value, incoming: bool) -> Port:
        bits = ELEMENT_BITS[value.type]
        return Port(
            name, value, incoming, bits, self.fold.parallel, (value.channels, *self.out_size)
        )

    @property
    def added(self) -> list[Value]:
        return [stage.change.value for stage in self.stages if isinstance(stage.change, Add)]

    @property
    def kept(self) -> list[Value]:
        return [write.value for stage in self.stages for write in stage.writes]


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
    """Rows of a line buffer: what is read, and what comes meanwhile.

    `lead` rows below the top of a window must have come before its result is taken. The number is a
    power of two, so that the lowest bits of a row's number are its place.
    """
    rows = max(span(node, "h"), lead + 1) + int(node.attrs["stride_h"])
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
