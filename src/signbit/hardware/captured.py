"""Workloads of captured graphs: networks that are not compiled, and those of other tools' files.

A captured graph has one node a layer. Nothing was folded or fused in it, and no hardware would run
it so; what everybody fuses is fused here too. Layers that work on single numbers (batch norm,
activations, additions, quantisation) join the layer that makes their input, if they are the first
to read it, and what only they read is never written. Then

* batch norm right behind a convolution goes into its weights (real ones) or its scale (others);
* quantisation to 8 bits is a multiplication and a rounding (`convert`), and the multiplication is
  none of its own where a scale stands before it: of integer weights, or of operands of an addition;
* an 8-bit operand of an addition or a product of maps is brought to the common scale by a
  multiplication;
* integer sums that are written as 8-bit numbers never become real ones; all others are converted.

Thresholds are not folded: a binary network has less to do once it is compiled
(`signbit.hardware.workload.workload_of`). Views (flattening, reshaping, padding) cost nothing.

A node whose result is stored in 8 bits has the attribute `quantized`, and its value the type; only
`signbit.hardware.onnx_graph` makes such.

Imports NumPy only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from signbit.compiler.ir import Graph, Node, Step, Type, Value
from signbit.errors import SignbitError
from signbit.hardware.counts import count_node
from signbit.hardware.elementwise import factors, pool_work, step_work
from signbit.hardware.workload import (
    TYPE_BITS,
    Product,
    Work,
    Workload,
    assemble,
    live_bits,
    map_bits,
    read_values,
    require_shapes,
)

_REAL_PRODUCTS = ("conv2d", "linear")
_QUANT_PRODUCTS = ("quant_conv2d", "quant_linear")
_BINARY_PRODUCTS = ("binary_conv2d", "binary_linear")
_PRODUCTS = (*_REAL_PRODUCTS, *_QUANT_PRODUCTS, *_BINARY_PRODUCTS)
_STEPS = ("rprelu", "prelu", "affine", "clip", "sigmoid")  # as the epilogues' of that name
_JOINING = ("batch_norm", "sign", "relu", "add", "mul", "int4_add", "identity", *_STEPS)
_VIEWS = ("flatten", "identity")
_INTEGERS = (Type.U8, Type.I8)


def workload_of_captured(graph: Graph, name: str, *, accuracy: float | None = None) -> Workload:
    """The workload of a captured graph, for one image.

    Raises SignbitError, naming the layer, for what cannot be counted, and for maps of open size.
    """
    for node in graph.nodes:
        if node.op == "unsupported":
            raise SignbitError(
                f"{name}: {node.path or 'the model'} is nothing that can be counted: it is no "
                "layer and no call that signbit knows"
            )
    require_shapes(graph, name)
    widths = {value: TYPE_BITS[value.type] for value in _values(graph)}
    groups = _fuse(graph)
    layers = tuple(_work(group, widths) for group in groups)
    runs = [(group.inputs, group.outputs) for group in groups]
    kept = [_Views(graph).root(value) for value in graph.outputs]
    return assemble(name, layers, live_bits(runs, kept, widths), accuracy)


def _values(graph: Graph) -> list[Value]:
    return [graph.input, *(value for node in graph.nodes for value in node.outputs)]


# --- fusing ---


class _Views:
    """Which map a value is a view of: itself, or what stands before flattenings."""

    def __init__(self, graph: Graph):
        self._roots: dict[Value, Value] = {}
        for node in graph.nodes:
            if is_view(node):
                self._roots[node.outputs[0]] = self.root(node.inputs[0])

    def root(self, value: Value) -> Value:
        return self._roots.get(value, value)


def is_view(node: Node) -> bool:
    """Whether a node gives its input another shape and does nothing else."""
    return node.op in _VIEWS and not node.attrs.get("quantized")


@dataclass(eq=False)
class _Group:
    """A layer, and those that join it, in order.

    Attributes:
        nodes: the first one gives the layer its name.
        inputs: maps that come from elsewhere.
        outputs: maps that others read, or users.
        live: what the last node makes.
    """

    nodes: list[Node]
    inputs: list[Value]
    outputs: list[Value] = field(default_factory=list)

    @property
    def live(self) -> Value:
        return self.nodes[-1].outputs[0]


def _fuse(graph: Graph) -> list[_Group]:
    views = _Views(graph)
    readers: dict[Value, list[Node]] = {}
    nodes = [node for node in graph.nodes if not is_view(node)]
    for node in nodes:
        for value in dict.fromkeys(map(views.root, read_values(node))):
            readers.setdefault(value, []).append(node)
    groups: list[_Group] = []
    home: dict[Value, int] = {}  # which group writes a value
    for node in nodes:
        inputs = list(dict.fromkeys(map(views.root, read_values(node))))
        at = max((home[value] for value in inputs if value in home), default=None)
        if at is not None and _joins(node, groups[at], inputs, readers):
            group = groups[at]
            group.inputs += [v for v in inputs if v is not group.live and v not in group.inputs]
            group.nodes.append(node)
        else:
            at = len(groups)
            groups.append(_Group([node], inputs))
        home.update((value, at) for value in node.outputs)
    kept = {views.root(value) for value in graph.outputs}
    for group in groups:
        inside = set(group.nodes)
        for value in (value for node in group.nodes for value in node.outputs):
            if value in kept or not inside.issuperset(readers.get(value, ())):
                group.outputs.append(value)
    return groups


def _joins(
    node: Node, group: _Group, inputs: list[Value], readers: Mapping[Value, list[Node]]
) -> bool:
    """Whether a node goes on with what a group has just made, being the first that reads it."""
    return node.op in _JOINING and group.live in inputs and readers[group.live][0] is node


# --- counting ---


def _work(group: _Group, widths: Mapping[Value, int]) -> Work:
    head = group.nodes[0]
    counts = [count_node(node) for node in group.nodes]
    parameters = Counter()
    for count in counts:
        parameters.update(count.params)
    product = _product(head) if head.op in _PRODUCTS else None
    operand, *added = (map_bits(value, widths) for value in group.inputs)
    return Work(
        name=head.path,
        op=head.op,
        product=product,
        elementwise=dict(_elementwise(group)),
        weight_bits=sum(bits * number for bits, number in parameters.items()),
        input_bits=operand + sum(added),
        output_bits=sum(map_bits(value, widths) for value in group.outputs),
        added_bits=0 if product is None else sum(added),
    )


def _product(node: Node) -> Product:
    a = node.attrs
    _, height, width = node.outputs[0].shape
    groups = a.get("groups", 1)
    own = node.inputs[0].type
    bits = a.get("bits") or TYPE_BITS[Type.F32]
    weight_bits = 1 if node.op in _BINARY_PRODUCTS else bits
    as_it_is = node.op in _BINARY_PRODUCTS or own in _INTEGERS
    return Product(
        taps=a.get("kernel_h", 1) * a.get("kernel_w", 1),
        inputs=a["in_channels"] // groups,
        outputs=a["out_channels"] // groups,
        pixels=height * width,
        groups=groups,
        weight_bits=weight_bits,
        input_bits=TYPE_BITS[own] if as_it_is else bits,
    )


def _elementwise(group: _Group) -> Counter[str]:
    """Kind to operations of a group."""
    found: Counter[str] = Counter()
    scaled = False  # whether a quantisation's factor goes into one that stands before it
    before: Node | None = None
    for at, node in enumerate(group.nodes):
        behind = group.nodes[at + 1] if at + 1 < len(group.nodes) else None
        for kind, number in _node_work(node, before, behind).items():
            found[kind] += number
        scaled = scaled or _scales(node)
        if node.attrs.get("quantized"):
            size = math.prod(node.outputs[0].shape)
            found["convert"] += size
            found["multiply"] += 0 if scaled else size
            scaled = False
        before = node
    head = group.nodes[0]
    sums = head.op in (*_QUANT_PRODUCTS, *_BINARY_PRODUCTS) and head.inputs[0].type != Type.F32
    if sums and not any(node.attrs.get("quantized") for node in group.nodes):
        found["convert"] += math.prod(head.outputs[0].shape)
    return +found


def _scales(node: Node) -> bool:
    """Whether a factor that follows a node could be multiplied into its constants before."""
    if node.op in (*_PRODUCTS, "batch_norm", "sigmoid"):
        return True
    if node.op == "affine":
        return bool(factors(node.params["scale"]))
    if node.op == "add":
        return all(value.type in _INTEGERS for value in node.inputs)
    return bool(pool_work(node).get("multiply"))


def _node_work(node: Node, before: Node | None, behind: Node | None) -> Counter[str]:
    size = math.prod(node.outputs[0].shape)
    channels, height, width = node.outputs[0].shape
    if node.op in _PRODUCTS:
        return _product_work(node, behind)
    if node.op == "batch_norm":
        if before is not None and before.op in _REAL_PRODUCTS:
            return Counter(add=size)
        return Counter(multiply=size, add=size)
    if node.op in _STEPS:
        work = step_work(Step(node.op, node.params, node.attrs), channels)
        if node.attrs.get("power_of_two"):
            work["shift"] += work.pop("multiply", 0)
        return _times(work, height * width)
    if node.op in ("add", "mul"):
        return Counter({"add" if node.op == "add" else "multiply": size}) + _rescaled(node)
    if node.op == "int4_add":
        return Counter(multiply=2 * size, convert=2 * size, add=size)
    if node.op in ("sign", "relu"):
        return Counter({"compare" if node.op == "sign" else "select": size})
    return pool_work(node)


def _product_work(node: Node, behind: Node | None) -> Counter[str]:
    channels, height, width = node.outputs[0].shape
    channel: Counter[str] = Counter()
    if behind is None or behind.op != "batch_norm":
        if "scale" in node.params:
            channel += factors(node.params["scale"])
        if "bias" in node.params:
            channel["add"] += channels
    found = _times(channel, height * width)
    if node.attrs.get("bits") and node.inputs[0].type not in _INTEGERS:
        quantised = math.prod(node.inputs[0].shape)
        found += Counter(multiply=quantised, convert=quantised)
    return found


def _rescaled(node: Node) -> Counter[str]:
    """Multiplications that bring 8-bit operands of an addition to one scale.

    Two maps are multiplied as they are: the product of their scales is a factor behind them.
    """
    if node.op == "mul":
        return Counter()
    return Counter(multiply=sum(math.prod(v.shape) for v in node.inputs if v.type in _INTEGERS))


def _times(counts: Counter[str], pixels: int) -> Counter[str]:
    return Counter({kind: number * pixels for kind, number in counts.items()})
