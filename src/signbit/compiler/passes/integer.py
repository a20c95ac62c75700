"""Lowering to integers: a program of adds, shifts, compares, bit operations and table look-ups.

Every real-valued map becomes a *stream*: int16 with a power-of-two scale, `2**-fraction_bits`, the
same for all that meet in additions, poolings and activations, so that shortcuts meet without a
shift; behind a convolution that nothing passes by, another one begins. The real factors of the
model become sums of signed powers of two, its weights integers of few signed digits, its additive
constants integers; docs/numerics.md has the arithmetic. Right shifts round down, which loses half a
step on average: that is carried along as a stream's *bias* and put right in the next constant that
is added anyway, at no cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from signbit.compiler.digits import MAX_SHIFT, integer_weights, signed_powers
from signbit.compiler.ir import INT16_MAX, INT32_MAX, INT32_MIN, Graph, Node, Type, Value
from signbit.compiler.passes.check import check
from signbit.compiler.passes.dead import remove_dead
from signbit.compiler.passes.fuse import fuse
from signbit.compiler.passes.movement import compose_channels
from signbit.compiler.passes.simplify import simplify
from signbit.compiler.passes.split import split_epilogues
from signbit.errors import CompileError

MOST_FRACTION_BITS = 14
LEAST_FRACTION_BITS = 4
SLOPE_EXPONENTS = (-15, 7)  # of 16-bit numbers; below, a slope is 0, above, everything saturates
_WEIGHT_BITS = 8
_INPUT_LEVELS = 255
_MOST_ADDED = 2.0**30  # to sums, which have 32 bits


@dataclass(frozen=True)
class IntegerOptions:
    """How a network is brought to integers.

    Attributes:
        stem: `"shift"` computes the first convolution by shifts and adds alone; `"multiply"` by
            8-bit products, which is faster where the CPU has them, and shows in the certificate.
        stem_bits: of the first convolution's weights with `"shift"`, 2..8. Each bit adds about a
            third of a signed digit, and so of an addition, to every weight.
        scale_digits: signed powers of two that stand for a weight scale, 1..4. 1 snaps it to a
            power of two; scales trained as such (`scale="power_of_two"`) are met exactly.
        slope_digits: the same for slopes of PReLUs that are not powers of two.
        clamp_slopes: bring a slope's exponent into -15..7 instead of refusing it.
        fraction_bits: of all streams; None takes the most that leave a bit of headroom above the
            calibrated range.
    """

    stem: str = "shift"
    stem_bits: int = 6
    scale_digits: int = 3
    slope_digits: int = 3
    clamp_slopes: bool = False
    fraction_bits: int | None = None

    def __post_init__(self) -> None:
        kinds = {"stem": str, "clamp_slopes": bool}
        for name, value in vars(self).items():
            kind = kinds.get(name, int)
            if type(value) is not kind and not (name == "fraction_bits" and value is None):
                raise CompileError(f"{name} must be of type {kind.__name__}, got {value!r}")
        if self.stem not in ("shift", "multiply"):
            raise CompileError(f'stem must be "shift" or "multiply", got {self.stem!r}')
        if self.stem_bits not in range(2, _WEIGHT_BITS + 1):
            raise CompileError(f"stem_bits must be 2..{_WEIGHT_BITS}, got {self.stem_bits!r}")
        for name in ("scale_digits", "slope_digits"):
            if getattr(self, name) not in range(1, 5):
                raise CompileError(f"{name} must be 1, 2, 3 or 4, got {getattr(self, name)!r}")
        if self.fraction_bits is not None and self.fraction_bits not in range(
            LEAST_FRACTION_BITS, MOST_FRACTION_BITS + 1
        ):
            raise CompileError(
                f"fraction_bits must be {LEAST_FRACTION_BITS}..{MOST_FRACTION_BITS}, got "
                f"{self.fraction_bits!r}"
            )


@dataclass(frozen=True)
class Stream:
    """An int16 map of an integer program.

    Attributes:
        name: of the value, made from its layer's path.
        low, high: what it held on the calibration images, in real numbers.
        fraction_bits: its scale is `2**-fraction_bits`.
    """

    name: str
    low: float
    high: float
    fraction_bits: int

    @property
    def limit(self) -> float:
        """The greatest magnitude that it can hold."""
        return INT16_MAX / 2**self.fraction_bits

    @property
    def headroom(self) -> float:
        """Bits between the calibrated range and saturation."""
        return math.log2(self.limit / max(abs(self.low), abs(self.high), 2.0**-self.fraction_bits))


@dataclass
class Integers:
    """A network in integers.

    Attributes:
        graph: the program, lowered.
        streams: its int16 maps, in the order of execution.
        output_exponents: of each output: real numbers are integers times `2**exponent`.
    """

    graph: Graph
    streams: list[Stream]
    output_exponents: list[int]


def lower_integers(
    captured: Graph, ranges: Mapping[str, tuple[float, float]], options: IntegerOptions
) -> Integers:
    """Lower a captured graph to integers; the captured one stays as it is.

    `ranges` has the least and greatest number of every captured value on the calibration images.
    Raises CompileError, naming the layer, for one that has no integer form, a slope or stream
    outside the range of its numbers, and factors that no shift reaches.
    """
    graph = compose_channels(remove_dead(fold_scales(simplify(captured))))
    lowering = _Lowering(graph, ranges, options)
    for node in graph.nodes:
        lowering.take(node)
    lowered = replace(
        graph,
        nodes=lowering.nodes,
        outputs=[lowering.output(value) for value in graph.outputs],
    )
    program = check(split_epilogues(fuse(lowered)))
    return Integers(program, lowering.streams, lowering.output_exponents)


def fold_scales(graph: Graph) -> Graph:
    """Constants a channel that follow a convolution's result alone go into its scale and bias."""
    nodes: list[Node] = []
    by_output: dict[Value, Node] = {}
    for node in graph.nodes:
        source = by_output.get(node.inputs[0])
        alone = source is not None and source.op in ("binary_conv2d", "conv2d")
        if node.op == "affine" and alone and graph.consumers(node.inputs[0]) == [node]:
            scale, bias = node.params["scale"], node.params["bias"]
            params = dict(source.params)
            if source.op == "binary_conv2d":
                params["scale"] = params["scale"] * scale
            else:
                params["weight"] = params["weight"] * scale.reshape(-1, 1, 1, 1)
            params["bias"] = params.get("bias", np.zeros_like(scale)) * scale + bias
            nodes.remove(source)
            node = replace(source, outputs=node.outputs, params=params)
        nodes.append(node)
        by_output[node.outputs[0]] = node
    return replace(graph, nodes=nodes)


@dataclass
class _Map:
    """What a captured value has become.

    Attributes:
        value: the integer map.
        exponent: real numbers are integers times `2**exponent`.
        bias: what the integers lack on average, in steps, a channel.
        divisor: what remains to be divided by: of a sum that stands for a mean, the number of its
            terms; of the images, the steps in 1.
    """

    value: Value
    exponent: int
    bias: np.ndarray | float = 0.0
    divisor: float = 1


@dataclass
class _Lowering:
    graph: Graph
    ranges: Mapping[str, tuple[float, float]]
    options: IntegerOptions
    nodes: list[Node] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    output_exponents: list[int] = field(default_factory=list)
    maps: dict[Value, _Map] = field(default_factory=dict)
    heads: set[Value] = field(default_factory=set)

    def __post_init__(self) -> None:
        for node in self.graph.nodes:
            if node.op in ("prelu", "rprelu"):
                self._slopes(node)  # before the maps that a bad one makes
        self.bits = self._choose_fraction_bits()

    # --- scales ---

    def _groups(self) -> list[list[Node]]:
        """The layers whose results are streams, together where these have one scale."""
        plain = ("sign", "global_avg_pool")
        outputs = set(self.graph.outputs)
        group: dict[Value, list[Node]] = {}
        for node in self.graph.nodes:
            value = node.outputs[0]
            if node.op in plain or (node.op == "conv2d" and value in outputs):
                continue
            own = [node]
            if node.op in _KEEP_SCALE:
                for source in {id(group[v]): group[v] for v in node.inputs if v in group}.values():
                    own = [*source, *own]
            for member in own:
                group[member.outputs[0]] = own
        return list({id(nodes): nodes for nodes in group.values()}.values())

    def _choose_fraction_bits(self) -> dict[Value, int]:
        """Of every stream, by its captured value."""
        found: dict[Value, int] = {}
        for group in self._groups():
            bits = self._bits_of(group)
            found.update((node.outputs[0], bits) for node in group)
        return found

    def _bits_of(self, group: list[Node]) -> int:
        """The bits behind the point that leave the streams of a group their headroom."""
        peak, node = max(((self._peak(n.outputs[0]), n) for n in group), key=lambda pair: pair[0])
        name = node.outputs[0].name
        bits = self.options.fraction_bits
        if bits is not None:
            if peak * 2**bits > INT16_MAX:
                most = math.floor(math.log2(INT16_MAX / peak))
                raise CompileError(
                    f"{node.path}: the stream {name} reaches {peak:.4g} on the calibration images, "
                    f"which overflows 16 bits with fraction_bits={bits}: use {most} at most"
                )
            return bits
        bits = MOST_FRACTION_BITS
        if peak > 0:
            bits = min(bits, math.floor(math.log2(INT16_MAX / (2 * peak))))
        if bits < LEAST_FRACTION_BITS:
            raise CompileError(
                f"{node.path}: the stream {name} reaches {peak:.4g} on the calibration images, and "
                f"would overflow 16 bits with {LEAST_FRACTION_BITS} bits behind the point: scale "
                "the network down, or look at the layer's constants"
            )
        return bits

    def _unit(self, node: Node) -> float:
        """Steps of the stream that a layer gives, in 1."""
        return 2.0 ** self.bits[node.outputs[0]]

    def _peak(self, value: Value) -> float:
        low, high = self._range(value)
        return max(abs(low), abs(high))

    def _range(self, value: Value) -> tuple[float, float]:
        if value.name not in self.ranges:
            raise CompileError(f"{value.name}: the calibration images give it no range")
        return self.ranges[value.name]

    # --- bookkeeping ---

    def take(self, node: Node) -> None:
        handler = _HANDLERS.get(node.op)
        if handler is None:
            raise CompileError(f"{node.path}: {_REASONS.get(node.op, _refusal(node.op))}")
        handler(self, node)

    def output(self, captured: Value) -> Value:
        if captured not in self.heads:
            raise CompileError(
                f"{captured.name}: an integer program ends with a linear layer or a convolution in "
                "real numbers, which gives its integers their scale; this output is not one's"
            )
        self.output_exponents.append(self.maps[captured].exponent)
        return self.maps[captured].value

    def _source(self, node: Node, at: int = 0) -> _Map:
        captured = node.inputs[at]
        if captured is self.graph.input:
            raise CompileError(
                f"{node.path}: reads the images: an integer program begins with a convolution in "
                "real numbers (signbit.nn.ScaledStdConv2d, torch.nn.Conv2d)"
            )
        return self.maps[captured]

    def _stream(self, node: Node, at: int = 0) -> _Map:
        """An input that must be a stream."""
        source = self._source(node, at)
        if source.value.type != Type.I16:
            raise CompileError(
                f"{node.path}: reads {node.inputs[at].name}, which is a sum and no 16-bit stream: "
                "in integers only a convolution or a linear layer may follow global pooling, and "
                "nothing the layer that gives an output"
            )
        return source

    def _add(
        self,
        op: str,
        node: Node,
        inputs: list[Value],
        output: Value,
        attrs: dict[str, int | float] | None = None,
        params: dict[str, np.ndarray] | None = None,
    ) -> Value:
        self.nodes.append(Node(op, node.path, inputs, [output], attrs or {}, params or {}))
        return output

    def _finish(self, node: Node, value: Value, bias: np.ndarray | float = 0.0) -> None:
        """`value` is what the layer's result has become: a stream."""
        captured = node.outputs[0]
        bits = self.bits[captured]
        self.maps[captured] = _Map(value, -bits, bias)
        low, high = self._range(captured)
        self.streams.append(Stream(captured.name, low, high, bits))

    def _new(self, node: Node, suffix: str = "", kind: Type = Type.I16) -> Value:
        value = node.outputs[0]
        return Value(value.name + suffix, kind, value.shape)

    # --- convolutions ---

    def binary_conv(self, node: Node) -> None:
        source = self._source(node)
        sums = self._new(node, ":sum", Type.I32)
        attrs, weight = dict(node.attrs), node.params["weight"]
        scale = node.params["scale"]
        if source.value.type == Type.B1:
            self._add("conv_b1", node, [source.value], sums, attrs, {"weight": weight})
            self._scale(node, sums, scale * self._unit(node), 0.0)
            return
        if attrs.pop("pad_value"):
            raise CompileError(f"{node.path}: pads real numbers with -1 or +1: use padding_value=0")
        bias = _lacking(source, weight, attrs)
        attrs["zero_point"] = 0
        self._add("conv_shift", node, [source.value], sums, attrs, {"weight": weight})
        factor = scale * 2.0**source.exponent * self._unit(node) / source.divisor
        self._scale(node, sums, factor, bias)

    def real_conv(self, node: Node) -> None:
        """A stem, a real-valued 1x1 convolution, a head."""
        weight = node.params["weight"]
        op, bits = "conv_shift", _WEIGHT_BITS
        if node.inputs[0] is self.graph.input:
            source = self._input(node)
            if self.options.stem == "multiply":
                op = "conv_q8"
            else:
                bits = self.options.stem_bits
        else:
            source = self._source(node)
            if source.value.type == Type.B1:
                raise CompileError(
                    f"{node.path}: real-valued weights meet bits: use signbit.nn.BinaryConv2d"
                )
        attrs = dict(node.attrs) | {"zero_point": 0}
        if source.value.type == Type.U8:
            attrs["zero_point"] = self.zero_point
        # sums have 32 bits: where weights are so small that theirs would not do, some are left off
        least = 2 * self._peak(node.outputs[0]) / INT32_MAX / 2.0**source.exponent
        integers, factors = integer_weights(weight / source.divisor, bits, least)
        factors = factors * 2.0**source.exponent  # of the sums
        sums = self._new(node, ":sum", Type.I32)
        self._add(op, node, [source.value], sums, attrs, {"weight": integers})
        bias = _lacking(source, integers, attrs)
        if node.outputs[0] in self.graph.outputs:
            self._head(node, sums, factors, bias)
        else:
            self._scale(node, sums, factors * self._unit(node), bias)

    def _input(self, node: Node) -> _Map:
        """The images in 8 bits, which hold just their range: what a step is, the weights take."""
        captured = self.graph.input
        if captured not in self.maps:
            low, high = self._range(captured)
            low, high = min(low, 0.0), max(high, 0.0)
            if not high > low:
                raise CompileError(f"{node.path}: the calibration images are all zero")
            steps = float(np.float32(_INPUT_LEVELS / (high - low)))
            self.zero_point = min(_INPUT_LEVELS, max(0, round(-low * steps)))
            value = Value(f"{captured.name}:u8", Type.U8, captured.shape)
            attrs = {"inv_scale": steps, "zero_point": self.zero_point, "levels": _INPUT_LEVELS}
            self._add("quant8", node, [captured], value, attrs)
            self.maps[captured] = _Map(value, 0, divisor=steps)
        return self.maps[captured]

    def _scale(
        self, node: Node, sums: Value, factors: np.ndarray, lacking: np.ndarray | float
    ) -> None:
        """Sums times a factor a channel, plus the layer's bias: a stream.

        `lacking`: what the sums lack on average.
        """
        added = node.params.get("bias", 0.0) * self._unit(node)
        value, bias = self._affine(node, sums, factors, lacking, added, Type.I16)
        self._finish(node, value, bias)

    def _affine(
        self,
        node: Node,
        source: Value,
        factors: np.ndarray,
        lacking: np.ndarray | float,
        added: np.ndarray | float,
        kind: Type,
    ) -> tuple[Value, np.ndarray | float]:
        """Integers times factors, plus constants, in steps of the result.

        The constants are added before the integers are scaled, as whole numbers of the integers'
        own steps: what is brought into 16 bits is then the result, not a part of it. What these
        steps are too coarse for is added behind. Returns the result and what it lacks on average.
        """
        channels = source.channels
        factors = np.broadcast_to(factors, (channels,))
        added = np.broadcast_to(added, (channels,))
        before = np.divide(added, factors, out=np.zeros(channels), where=factors != 0)
        before = np.where(np.abs(before) < _MOST_ADDED, np.rint(before), 0)
        if before.any():
            value = self._new(node, ":biased", source.type)
            params = {"bias": before.astype(np.int32)}
            source = self._add("bias", node, [source], value, params=params)
        behind = added - before * factors
        rounded = np.clip(np.rint(behind), INT32_MIN, INT32_MAX)
        value = self._new(node, ":scaled" if rounded.any() else "", kind)
        lost = self._multiply(node, source, factors, value)
        if rounded.any():
            params = {"bias": rounded.astype(np.int32)}
            value = self._add("bias", node, [value], self._new(node, kind=kind), params=params)
        return value, lacking * factors + lost + behind - rounded

    def _multiply(self, node: Node, source: Value, factors: np.ndarray, to: Value) -> np.ndarray:
        """`to` becomes `source` times factors, by shifts; returns what rounding down loses."""
        worst = int(np.abs(factors).argmax())
        if abs(factors[worst]) >= 2.0**MAX_SHIFT:
            raise CompileError(
                f"{node.path}: channel {worst} is scaled by {factors[worst]:.3g} steps, more than "
                f"2^{MAX_SHIFT}: use fewer fraction_bits"
            )
        shifts, signs = signed_powers(factors, self.options.scale_digits)
        params = {"shifts": shifts, "signs": signs}
        self._add("shift_sum", node, [source], to, {"digits": shifts.shape[1]}, params)
        return (signs * np.where(shifts < 0, 0.5 - np.exp2(shifts - 1.0), 0)).sum(1)

    def _head(self, node: Node, sums: Value, factors: np.ndarray, bias: np.ndarray | float) -> None:
        """The last layer: integers of one scale, in 16 bits' range, stored in 32."""
        peak = max(self._peak(node.outputs[0]), 2.0**-MOST_FRACTION_BITS)
        bits = math.floor(math.log2(INT16_MAX / (4 * peak)))
        added = node.params.get("bias", 0.0) * 2.0**bits
        out, _ = self._affine(node, sums, factors * 2.0**bits, bias, added, Type.I32)
        captured = node.outputs[0]
        self.maps[captured] = _Map(out, -bits)
        self.heads.add(captured)

    # --- everything else ---

    def sign(self, node: Node) -> None:
        source = self._stream(node)
        bias = node.params.get("bias", 0.0) * 2.0**-source.exponent + source.bias
        channels = node.outputs[0].channels
        low = np.clip(np.ceil(-np.broadcast_to(bias, (channels,))), INT32_MIN, INT32_MAX)
        params = {
            "low": low.astype(np.int32),
            "high": np.full(channels, INT32_MAX, np.int32),
            "flip": np.zeros(channels, np.uint8),
        }
        bits = self._new(node, kind=Type.B1)
        self._add("threshold", node, [source.value], bits, params=params)
        self.maps[node.outputs[0]] = _Map(bits, 0)

    def prelu(self, node: Node) -> None:
        source = self._stream(node)
        channels = node.outputs[0].channels
        unit = self._unit(node)
        before = node.params.get("shift_in", np.zeros(channels)) * unit + source.bias
        after = node.params.get("shift_out", np.zeros(channels)) * unit
        for name, exact in (("shift_in", before), ("shift_out", after)):
            worst = int(np.abs(exact).argmax())
            if abs(exact[worst]) > 2 * INT16_MAX:
                raise CompileError(
                    f"{node.path}: {name} of channel {worst} is {exact[worst] / unit:.4g}, beyond "
                    f"16 bits at a scale of 2^{source.exponent}"
                )
        shifts, signs = signed_powers(self._slopes(node), self.options.slope_digits)
        params = {
            "shift_in": np.broadcast_to(np.rint(before), (channels,)).astype(np.int32),
            "shifts": shifts,
            "signs": signs,
            "shift_out": np.rint(after).astype(np.int32),
        }
        value = self._new(node)
        attrs = {"digits": shifts.shape[1]}
        self._finish(node, self._add("shift_prelu", node, [source.value], value, attrs, params))

    def _slopes(self, node: Node) -> np.ndarray:
        """Slopes [C] that 16-bit numbers can be shifted by."""
        slopes = np.broadcast_to(node.params["slope"], (node.outputs[0].channels,))
        least, most = SLOPE_EXPONENTS
        size = np.abs(slopes)
        # a power of two that is 0 was too small for the model's own numbers
        lost = (size == 0) & bool(node.attrs.get("power_of_two", 0))
        outside = (size > 2.0**most) | ((size < 2.0**least) & (size > 0)) | lost
        if outside.any() and not self.options.clamp_slopes:
            channel = int(outside.argmax())
            exponent = math.log2(size[channel]) if size[channel] else -math.inf
            raise CompileError(
                f"{node.path}: the slope of channel {channel} is {slopes[channel]:.4g}, with the "
                f"exponent {exponent:.4g}, outside the fixed-point range {least}..{most}: compile "
                "with clamp_slopes, which brings it there, or train with a narrower range"
            )
        clamped = np.where(outside, np.clip(size, 2.0**least, 2.0**most), size)
        return np.copysign(clamped, slopes)

    def affine(self, node: Node) -> None:
        source = self._stream(node)
        scale = node.params["scale"] * 2.0**source.exponent * self._unit(node)
        added = node.params["bias"] * self._unit(node)
        value, bias = self._affine(node, source.value, scale, source.bias, added, Type.I16)
        self._finish(node, value, bias)

    def add(self, node: Node) -> None:
        sources = [self._stream(node, at) for at in range(2)]
        shapes = [source.value.shape for source in sources]
        if shapes[0] != shapes[1]:
            raise CompileError(f"{node.path}: adds maps of {shapes[0]} and {shapes[1]} in integers")
        value = self._add("add", node, [s.value for s in sources], self._new(node))
        self._finish(node, value, sources[0].bias + sources[1].bias)

    def max_pool(self, node: Node) -> None:
        source = self._stream(node)
        value = self._add("max_pool", node, [source.value], self._new(node), dict(node.attrs))
        self._finish(node, value, source.bias)

    def avg_pool(self, node: Node) -> None:
        source, a = self._stream(node), node.attrs
        taps = a["kernel_h"] * a["kernel_w"]
        if taps & (taps - 1) or a["pad_h"] or a["pad_w"] or a["ceil_mode"]:
            raise CompileError(
                f"{node.path}: averages {a['kernel_h']}x{a['kernel_w']} pixels; in integers an "
                "average is a shift: use a kernel of 2, 4, 8 ... pixels, no padding, no ceil_mode"
            )
        value = self._add("avg_pool", node, [source.value], self._new(node), dict(a))
        self._finish(node, value, source.bias + (0.5 - 0.5 / taps))

    def global_avg_pool(self, node: Node) -> None:
        source = self._stream(node)
        _, height, width = node.inputs[0].shape
        area = height * width
        sums = self._new(node, ":sum", Type.I32)
        self._add("global_sum", node, [source.value], sums, {"area": area})
        # its reader divides: a convolution's weights
        self.maps[node.outputs[0]] = _Map(sums, source.exponent, source.bias * area, area)

    def channels(self, node: Node) -> None:
        sources = [self._source(node, at) for at in range(len(node.inputs))]
        bits = all(source.value.type == Type.B1 for source in sources)
        if not bits:
            sources = [self._stream(node, at) for at in range(len(node.inputs))]
        index = node.params["index"]
        value = self._new(node, kind=Type.B1 if bits else Type.I16)
        self._add("channels", node, [s.value for s in sources], value, params={"index": index})
        if bits:
            self.maps[node.outputs[0]] = _Map(value, 0)
            return
        biases = [np.broadcast_to(s.bias, (s.value.channels,)) for s in sources]
        self._finish(node, value, np.concatenate(biases)[index])


def _lacking(source: _Map, weight: np.ndarray, attrs: Mapping[str, int | float]) -> np.ndarray:
    """What a convolution's sums lack on average, where its input lacks `source.bias`; [O]."""
    outputs, inputs = len(weight), int(attrs["in_channels"])
    groups = int(attrs["groups"])
    bias = np.broadcast_to(source.bias, (inputs,)).reshape(groups, 1, -1)
    totals = weight.astype(np.int64).reshape(outputs, inputs // groups, -1).sum(2)
    return (totals.reshape(groups, outputs // groups, -1) * bias).sum(2).reshape(outputs)


_KEEP_SCALE = ("add", "prelu", "rprelu", "max_pool", "avg_pool", "channels")

_HANDLERS: dict[str, Callable[[_Lowering, Node], None]] = {
    "binary_conv2d": _Lowering.binary_conv,
    "conv2d": _Lowering.real_conv,
    "sign": _Lowering.sign,
    "rprelu": _Lowering.prelu,
    "prelu": _Lowering.prelu,
    "affine": _Lowering.affine,
    "add": _Lowering.add,
    "max_pool": _Lowering.max_pool,
    "avg_pool": _Lowering.avg_pool,
    "global_avg_pool": _Lowering.global_avg_pool,
    "channels": _Lowering.channels,
}

_REASONS = {
    "batch_norm": (
        "a batch norm has no form in integers: use a network without (ab_reactnet18 and its "
        'family), or arithmetic="float"'
    ),
    "quant_conv2d": (
        "its 8-bit scales are real numbers: keep the layer real-valued (torch.nn.Conv2d); an "
        "integer program quantises it at powers of two itself"
    ),
    "quant_linear": "its 8-bit scales are real numbers: keep the layer real (torch.nn.Linear)",
    "int4_add": 'its scale is real: a network of 1-bit maps runs as it is, arithmetic="float"',
}


def _refusal(op: str) -> str:
    return f'{op} has no form in integers: use arithmetic="float"'
