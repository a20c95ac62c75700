"""Random inputs of a circuit, and what the graph says of them.

The block's own nodes, untouched, are put behind a few that make its inputs from a real-valued map,
and the whole is given to whoever evaluates graphs (`signbit.compiler.reference.run`). So what is
expected of a circuit comes from the graph and the reference, and not from what wrote the circuit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from signbit.compiler.ir import Graph, Node, Step, Type, Value
from signbit.hardware.rtl.circuit import Circuit
from signbit.hardware.rtl.convolution import Port
from signbit.hardware.rtl.errors import CircuitError
from signbit.hardware.rtl.stages import evaluate, stages_of

_MOST_NUMBERS = 1 << 27

Evaluate = Callable[..., tuple[list[np.ndarray], dict[str, np.ndarray]]]


@dataclass(frozen=True)
class Vectors:
    """What goes into a circuit and what comes out, by port: integers [N, C, H, W]."""

    maps: dict[str, np.ndarray]

    @property
    def count(self) -> int:
        """Vectors: output pixels, each with all its channels."""
        _, _, height, width = next(reversed(self.maps.values())).shape
        return len(next(iter(self.maps.values()))) * height * width


def harness(circuit: Circuit) -> Graph:
    """The circuit's block as a graph whose input has the channels of all its inputs.

    Bits are -1 and +1 there, integers themselves, real numbers integers times their step. A map
    that is added may be smaller than the image: it is then every n-th pixel of its channels.
    """
    pixels, *added = [port for port in circuit.ports if port.incoming]
    channels = sum(port.shape[0] for port in (pixels, *added))
    source = Value("harness", Type.F32, (channels, *pixels.shape[1:]))
    nodes, first = [], 0
    for port in (pixels, *added):
        index = np.arange(first, first + port.shape[0], dtype=np.int32)
        first += port.shape[0]
        nodes += _feed(circuit.block.path, source, port, index)
    nodes += circuit.block.nodes
    outputs = [port.value for port in circuit.ports if not port.incoming]
    return Graph(nodes, source, outputs, [False] * len(outputs))


def _feed(path: str, source: Value, port: Port, index: np.ndarray) -> list[Node]:
    """The nodes that make one input."""
    value = port.value
    chosen = Value(f"harness:{port.name}", Type.F32, (len(index), *source.shape[1:]))
    nodes = [Node("channels", "harness", [source], [chosen], {}, {"index": index})]
    if port.shape[1:] != source.shape[1:]:
        smaller = Value(f"harness:{port.name}:small", Type.F32, port.shape)
        attrs = {"mode": 0, "align_corners": 0, "scale_h": 0, "scale_w": 0}
        attrs |= {"out_h": port.shape[1], "out_w": port.shape[2]}
        nodes.append(Node("resize", "harness", [chosen], [smaller], attrs))
        chosen = smaller
    if value.type == Type.F32:
        nodes[-1].outputs[0] = value
        return nodes
    zeros = np.zeros(port.shape[0], np.float32)
    step = {
        Type.B1: Step("sign", {"cut": zeros}, {}, value),
        Type.U8: Step("quant8", {}, {"inv_scale": 1.0, "zero_point": 0, "levels": 255}, value),
        Type.I16: Step("quant16", {}, {"inv_scale": 1.0}, value),
    }.get(value.type)
    if step is None:
        raise CircuitError(
            f"{path}: adds 4-bit integers, which cannot be given from outside: make the circuit of "
            f"the whole block, {path.rpartition('.')[0]}"
        )
    nodes.append(Node("pointwise", "harness", [chosen], [value], {}, {}, [step]))
    return nodes


def random_inputs(circuit: Circuit, images: int, seed: int) -> np.ndarray:
    """Inputs of the harness, float32 [N, C, H, W].

    Bits have another density in each image; 8-bit numbers are uniform; 16-bit ones are uniform over
    all that 16 bits hold in every other image, and a tenth of that as a normal distribution in the
    others, so that saturation occurs and is not the rule.
    """
    rng = np.random.default_rng(seed)
    pixels, *added = [port for port in circuit.ports if port.incoming]
    shape = (images, pixels.shape[0], *pixels.shape[1:])
    if pixels.value.type == Type.B1:
        density = rng.uniform(0.2, 0.8, (images, 1, 1, 1))
        parts = [np.where(rng.random(shape) < density, 1, -1)]
    else:
        parts = [rng.integers(0, 256, shape)]
    for port in added:
        shape = (images, port.shape[0], *pixels.shape[1:])
        wide = rng.integers(-(2**15), 2**15, shape)
        narrow = np.clip(np.rint(rng.normal(0, 3277, shape)), -(2**15), 2**15 - 1)
        numbers = np.where(np.arange(images).reshape(-1, 1, 1, 1) % 2, wide, narrow)
        if port.value.type == Type.F32:
            numbers = numbers / 2.0 ** (circuit.fraction_bits or 0)
        parts.append(numbers)
    return np.concatenate(parts, 1).astype(np.float32)


def make_vectors(circuit: Circuit, images: int, seed: int, run: Evaluate) -> Vectors:
    """Random inputs, and what the graph gives for them.

    Args:
        circuit: whose block is evaluated.
        images: how many; each has as many vectors as its output pixels.
        seed: of the random numbers.
        run: evaluates a graph: `signbit.compiler.reference.run`.

    Where real numbers became fixed point the graph's are others: then its sums come from `run`, and
    what follows from `stages.evaluate`, which `fixed_point_error` compares with the graph.
    """
    if images < 1:
        raise CircuitError(f"at least one image is needed, got {images}")
    numbers = images * sum(math.prod(port.shape) for port in circuit.ports)
    if numbers > _MOST_NUMBERS:
        raise CircuitError(
            f"{images} images have {numbers:,} numbers, more than the {_MOST_NUMBERS:,} of a test "
            "bench: take fewer images or a smaller size"
        )
    x = random_inputs(circuit, images, seed)
    if _fixed(circuit):
        values = _fixed_point(circuit, x, run)
    else:
        _, values = run(harness(circuit), x, collect=True)
    maps = {}
    for port in circuit.ports:
        array = values[port.value.name]
        if port.incoming and port.value.type == Type.F32:
            array = np.rint(array * 2.0**circuit.fraction_bits)
        maps[port.name] = array.astype(np.int64)
    return Vectors(maps)


def fixed_point_error(
    circuit: Circuit, images: int, seed: int, run: Evaluate
) -> dict[str, tuple[float, float]]:
    """How far a circuit's numbers are from the graph's, by output port: greatest and mean.

    In steps of `2**-fraction_bits`, or levels of 8 bits, on images whose added maps do not
    saturate; of bits, the share that differs, twice.
    """
    x = random_inputs(circuit, 2 * images, seed)[::2]
    found = _fixed_point(circuit, x, run)
    _, real = run(harness(circuit), x, collect=True)
    errors = {}
    for port in circuit.ports:
        if port.incoming:
            continue
        have, want = found[port.value.name], real[port.value.name]
        if port.element == 1:
            share = float((have != want).mean())
            errors[port.name] = share, share
            continue
        if port.value.type == Type.F32:
            want = np.clip(want * 2.0**circuit.fraction_bits, -(2**15), 2**15 - 1)
        off = np.abs(have - want.astype(np.float64))
        errors[port.name] = float(off.max()), float(off.mean())
    return errors


def _fixed(circuit: Circuit) -> bool:
    """Whether real numbers of the graph are others in the circuit."""
    return any(port.value.type in (Type.F32, Type.U8) for port in circuit.ports[1:])


def _fixed_point(circuit: Circuit, x: np.ndarray, run: Evaluate) -> dict[str, np.ndarray]:
    """The block's maps, in fixed point behind the sums, by name."""
    (node,) = circuit.block.nodes
    sums = Value("harness:sums", Type.I32, circuit.convolutions[0].node.outputs[0].shape)
    graph = harness(circuit)
    bare = Node(
        node.op, node.path, node.inputs[:1], [sums], node.attrs, node.params,
        [Step("store", value=sums)],
    )  # fmt: skip
    graph = Graph([*graph.nodes[:-1], bare], graph.input, [sums], [False])
    _, values = run(graph, x, collect=True)
    added = {
        port.value: np.rint(values[port.value.name] * 2.0**circuit.fraction_bits).astype(np.int64)
        for port in circuit.ports
        if port.incoming and port.value.type == Type.F32
    }
    stages = stages_of(node, "ladder", circuit.fraction_bits)
    written = evaluate(stages, values["harness:sums"], added)
    return values | {value.name: array for value, array in written.items()}


def transfers(port: Port, array: np.ndarray) -> list[int]:
    """A map [N, C, H, W] as the transfers of its port, image by image, pixel by pixel."""
    n, channels, height, width = array.shape
    groups = channels // port.channels
    ordered = array.transpose(0, 2, 3, 1).reshape(n * height * width * groups, port.channels)
    mask = (1 << port.element) - 1
    bits = (ordered[:, :, None] & mask) >> np.arange(port.element) & 1
    packed = np.packbits(bits.astype(np.uint8).reshape(len(ordered), -1), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]
