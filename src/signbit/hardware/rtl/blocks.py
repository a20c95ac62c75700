"""Layers and blocks of a compiled graph that circuits are made of.

A *layer* is one convolution with what follows on its sums. A *BiNeal block* is three: a convolution
to bits, a second one on these, and one on the block's input whose 4-bit result is added to it.
Every other block (that of A&B BNN, with its shortcut) is one convolution with an added map.
"""

from __future__ import annotations

from dataclasses import dataclass

from signbit.compiler.ir import Graph, Node, Type
from signbit.hardware.rtl.errors import CircuitError

CONVOLUTIONS = ("conv_b1", "conv_q8")


@dataclass(frozen=True)
class Block:
    """What a circuit is made of.

    Attributes:
        path: of the layer or block.
        nodes: its convolutions, in the order of execution: one, or the three of a BiNeal block
            (first, skip, second).
        left_out: other operations below the path, which the circuit does not have.
    """

    path: str
    nodes: list[Node]
    left_out: list[Node]

    @property
    def is_bineal(self) -> bool:
        return len(self.nodes) == 3


def supported(graph: Graph) -> list[str]:
    """The names that `find_block` knows in a graph: layers, and above them BiNeal blocks."""
    names = []
    for node in graph.nodes:
        if node.op not in CONVOLUTIONS:
            continue
        parent = node.path.rpartition(".")[0]
        if parent and parent not in names and _bineal(_below(graph, parent)) is not None:
            names.append(parent)
        names.append(node.path)
    return names


def find_block(graph: Graph, name: str) -> Block:
    """The layer or block of that path.

    Raises CircuitError, naming what can be had instead, for a path that the graph has not, for a
    layer of another kind, and for a block that is not a known one.
    """
    nodes = _below(graph, name)
    if not nodes:
        raise CircuitError(f"no layer {name!r}; layers that have a circuit: {_listed(graph)}")
    convolutions = [node for node in nodes if node.op in CONVOLUTIONS]
    rest = [node for node in nodes if node.op not in CONVOLUTIONS]
    if len(convolutions) == 1:
        return Block(name, convolutions, rest)
    block = _bineal(nodes)
    if block is not None:
        return Block(name, block, rest)
    if not convolutions:
        kinds = ", ".join(dict.fromkeys(node.op for node in nodes))
        raise CircuitError(f"{name}: {kinds} has no circuit; layers that have: {_listed(graph)}")
    paths = ", ".join(node.path for node in convolutions)
    raise CircuitError(
        f"{name}: {len(convolutions)} convolutions that are no BiNeal block; name one of {paths}"
    )


def _below(graph: Graph, name: str) -> list[Node]:
    return [node for node in graph.nodes if node.path == name or node.path.startswith(f"{name}.")]


def _listed(graph: Graph, most: int = 12) -> str:
    names = supported(graph)
    if not names:
        return "none in this network"
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _bineal(nodes: list[Node]) -> list[Node] | None:
    """First, skip and second convolution, if the nodes' convolutions are such a block."""
    convolutions = [node for node in nodes if node.op == "conv_b1"]
    if len(convolutions) != 3:
        return None
    for second in convolutions:
        firsts = [n for n in convolutions if n.outputs == [second.inputs[0]]]
        skips = [n for n in convolutions if n.outputs[0] in second.inputs[1:]]
        if len(firsts) == 1 and len(skips) == 1:
            first, skip = firsts[0], skips[0]
            same = first.inputs == skip.inputs[:1] and len(skip.outputs) == 1
            if same and skip.outputs[0].type == Type.I4:
                return [first, skip, second]
    return None
