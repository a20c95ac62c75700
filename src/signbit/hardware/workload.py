"""What a network asks of hardware, layer by layer: products of matrices, element-wise work, bits.

A `Workload` is what every model of hardware reads: arrays, streaming and photonic accelerators,
energy. It knows nothing of how a layer is written, only how much of what kind there is to do for
one image, and how many bits come and go.

Imports NumPy only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from signbit.compiler.emit import read_graph
from signbit.compiler.ir import LOWERED_OPS, Graph, Node, Type, Value
from signbit.compiler.shapes import infer_shapes
from signbit.errors import SignbitError
from signbit.hardware.certificate import is_pixel_table
from signbit.hardware.elementwise import node_work, parameter_bits, weight_width

# what element-wise work consists of; `signbit.hardware.elementwise` says what counts as one
KINDS = ("add", "multiply", "compare", "shift", "select", "look_up", "convert")
TYPE_BITS = {
    Type.F32: 32, Type.I32: 32, Type.I16: 16, Type.I8: 8, Type.U8: 8, Type.I4: 4, Type.B1: 1,
}  # fmt: skip
_FOUR_BITS = 15  # levels of a 4-bit input
_PIXEL_BITS = 8
_CONVOLUTIONS = ("conv_b1", "conv_q8", "conv_shift")


@dataclass(frozen=True)
class Product:
    """A convolution or linear layer as a product of matrices, of one group.

    K = `depth`, M = `outputs`, P = `pixels` (METHODS' names are those of SCALE-Sim, ISPASS 2020).

    Attributes:
        taps: kernel height * width; 1 for a linear layer.
        inputs: input channels of a group.
        outputs: output channels of a group.
        pixels: output height * width of one image.
        groups: how many such products there are.
        weight_bits: of a weight.
        input_bits: of an input.
    """

    taps: int
    inputs: int
    outputs: int
    pixels: int
    groups: int = 1
    weight_bits: int = 8
    input_bits: int = 8

    @property
    def depth(self) -> int:
        """Terms of one dot product."""
        return self.taps * self.inputs

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all groups for one image."""
        return self.groups * self.depth * self.outputs * self.pixels

    @property
    def binary(self) -> bool:
        """Whether both operands are single bits."""
        return self.weight_bits == 1 and self.input_bits == 1


@dataclass(frozen=True)
class Work:
    """One layer of a network as hardware sees it, for one image.

    Attributes:
        name: path of the layer.
        op: the operation's name in its graph.
        product: None for element-wise work, pooling and movement.
        elementwise: kind (`KINDS`) to operations; what is fused behind a product is among them.
        weight_bits: of all parameters that it reads: weights, thresholds, scales.
        input_bits: of the activations that it reads.
        output_bits: of the activations that it writes.
        live_bits: of all activations that are alive while it runs, its own included; 0 if nobody
            counted them.
        added_bits: of `input_bits`, those of maps that are not the product's operand.
    """

    name: str
    op: str
    product: Product | None
    elementwise: Mapping[str, int]
    weight_bits: int
    input_bits: int
    output_bits: int
    live_bits: int = 0
    added_bits: int = 0

    @property
    def elementwise_total(self) -> int:
        """Element-wise operations of all kinds."""
        return sum(self.elementwise.values())


@dataclass(frozen=True)
class Workload:
    """A network as hardware sees it, for one image.

    Attributes:
        name: of the network.
        layers: in the order of execution.
        peak_activation_bits: the most activation bits alive at once, inputs and outputs of the
            running layer included.
        accuracy: of the network in percent, if somebody knows it.
    """

    name: str
    layers: tuple[Work, ...]
    peak_activation_bits: int
    accuracy: float | None = None

    @property
    def body(self) -> Workload:
        """The workload without stem and head, as cycle ratios of binary networks are published.

        The stem is all up to the first product and the pooling right behind it; the head is all
        from the last product on and the pooling right before it. A network of fewer than three
        products has no body: ValueError.
        """
        products = [i for i, layer in enumerate(self.layers) if layer.product is not None]
        if len(products) < 3:
            raise ValueError(
                f"{self.name} has {len(products)} convolutions and linear layers: nothing stands "
                "between its stem and its head"
            )
        first, last = products[0] + 1, products[-1]
        while "pool" in self.layers[first].op.lower():
            first += 1
        while "pool" in self.layers[last - 1].op.lower():
            last -= 1
        layers = self.layers[first:last]
        peak = max(max(each.live_bits, each.input_bits + each.output_bits) for each in layers)
        return replace(self, layers=layers, peak_activation_bits=peak)


class Compiled(Protocol):
    """What `signbit.compile` returns: what is counted of it is its lowered graph."""

    graph: Graph


def workload_of(
    source: Graph | Compiled | str | os.PathLike[str],
    name: str | None = None,
    *,
    size: tuple[int, int] | None = None,
    accuracy: float | None = None,
) -> Workload:
    """The workload of a compiled network, for one image.

    It is counted on the lowered graph, which is what the file holds and the engine runs. Every
    activation is read and written once, whatever windows overlap. Images count as 8-bit pixels
    where the program normalises them itself, and are quantised by a table then.

    Args:
        source: a lowered graph, a compiled model, or a `.signbit` file.
        name: of the network; by default the file's name.
        size: height and width of an image, for a file; by default those it was compiled for.
        accuracy: of the network in percent, if it is known.

    Raises:
        SignbitError: a map has no size (named), an image of `size` does not fit the network, or
            the graph is not lowered.
        FormatError: the file is damaged.
        OSError: the file cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        graph, name = read_graph(source), name or Path(source).stem
        if size is not None:
            infer_shapes(graph, (graph.input.channels, *size))
    else:
        if size is not None:
            raise SignbitError("size is for files: compile the network for images of that size")
        graph = source if isinstance(source, Graph) else source.graph
    name = name or "network"
    strange = [node for node in graph.nodes if node.op not in LOWERED_OPS]
    if strange:
        raise SignbitError(
            f"{name}: {strange[0].path} ({strange[0].op}) is of a captured graph: give the lowered "
            "one, compiled.graph"
        )
    require_shapes(graph, name)
    widths = _widths(graph)
    layers = tuple(
        _look_up(node, widths) if is_pixel_table(graph, node) else _work(node, widths)
        for node in graph.nodes
    )
    live = live_bits([(node.inputs, node.outputs) for node in graph.nodes], graph.outputs, widths)
    return assemble(name, layers, live, accuracy)


def assemble(
    name: str, layers: tuple[Work, ...], live: list[int], accuracy: float | None
) -> Workload:
    """A workload of layers, and of the bits alive while each of them runs."""
    layers = tuple(replace(work, live_bits=bits) for work, bits in zip(layers, live, strict=True))
    return Workload(name, layers, max(live, default=0), accuracy)


def require_shapes(graph: Graph, name: str) -> None:
    """Raise SignbitError, naming input or layer, unless every map of a graph has a size."""
    for value in (graph.input, *(value for node in graph.nodes for value in node.outputs)):
        if not all(isinstance(length, int) and length > 0 for length in value.shape):
            shape = "x".join(map(str, value.shape))
            what = "the input" if value is graph.input else "the map"
            raise SignbitError(
                f"{name}: {what} {value.name!r} is of {shape}, whose size is open: say for images "
                "of which size to count, as in --size 224x224"
            )


def live_bits(
    runs: list[tuple[list[Value], list[Value]]], kept: list[Value], widths: Mapping[Value, int]
) -> list[int]:
    """Bits of activations alive while each of some layers runs.

    A map is alive from the layer that writes it to the last one that reads it; `kept`, the
    network's outputs, to the end.

    Args:
        runs: inputs and outputs of each layer, in the order of execution.
        kept: the network's outputs.
        widths: bits of a number of each map.
    """
    born: dict[Value, int] = {}
    dies: dict[Value, int] = {}
    for at, (inputs, outputs) in enumerate(runs):
        for value in (*inputs, *outputs):
            born.setdefault(value, at)
            dies[value] = at
    for value in kept:
        born.setdefault(value, 0)
        dies[value] = len(runs) - 1
    alive = [0] * (len(runs) + 1)
    for value, first in born.items():
        # an input that nobody wrote stands there from the start
        alive[first] += map_bits(value, widths)
        alive[dies[value] + 1] -= map_bits(value, widths)
    for at in range(1, len(alive)):
        alive[at] += alive[at - 1]
    return alive[:-1]


def map_bits(value: Value, widths: Mapping[Value, int]) -> int:
    """Bits of a map of one image."""
    return math.prod(value.shape) * widths[value]


def _widths(graph: Graph) -> dict[Value, int]:
    """Bits of a number of each map of a lowered graph."""
    found = {graph.input: TYPE_BITS[graph.input.type] if graph.mean is None else _PIXEL_BITS}
    for node in graph.nodes:
        found.update((value, TYPE_BITS[value.type]) for value in node.outputs)
        for step in node.epilogue:
            if step.kind == "quant8" and step.attrs["levels"] == _FOUR_BITS:
                found[step.value] = TYPE_BITS[Type.I4]
    return found


def _work(node: Node, widths: Mapping[Value, int]) -> Work:
    bits = parameter_bits(node.epilogue)
    product = None
    if node.op in _CONVOLUTIONS:
        product = _product(node, widths[node.inputs[0]])
        bits += node.params["weight"].size * product.weight_bits
    operand, *added = (map_bits(value, widths) for value in dict.fromkeys(read_values(node)))
    return Work(
        name=node.path,
        op=node.op,
        product=product,
        elementwise=dict(node_work(node)),
        weight_bits=bits,
        input_bits=operand + sum(added),
        output_bits=sum(map_bits(value, widths) for value in node.outputs),
        added_bits=0 if product is None else sum(added),
    )


def _look_up(node: Node, widths: Mapping[Value, int]) -> Work:
    """Pixels that become integers by a table of 256 numbers a channel."""
    plain, result = _work(node, widths), node.outputs[0]
    table = (1 << _PIXEL_BITS) * result.channels * widths[result]
    return replace(plain, elementwise={"look_up": math.prod(result.shape)}, weight_bits=table)


def read_values(node: Node) -> list[Value]:
    """The maps whose numbers a node reads: of a resize's second one it wants the size alone."""
    return node.inputs[:1] if node.op == "resize" else node.inputs


def _product(node: Node, input_bits: int) -> Product:
    a = node.attrs
    _, height, width = node.outputs[0].shape
    weight = node.params["weight"]
    return Product(
        taps=a["kernel_h"] * a["kernel_w"],
        inputs=a["in_channels"] // a["groups"],
        outputs=a["out_channels"] // a["groups"],
        pixels=height * width,
        groups=a["groups"],
        weight_bits=1 if node.op == "conv_b1" else weight_width(weight),
        input_bits=input_bits,
    )
