"""Operation counts of captured graphs: multiply-accumulates and parameters, by precision.

The counts are those of the layers as the model has them, whatever the compiler fuses afterwards.
One MAC is one operation, not two; convolutions and linear layers count, element-wise layers and
pooling do not. From them follow the field's summaries:

* `bops`: MACs of one bit with one bit. `flops`: all other MACs, 8-bit ones too.
* `ops` = flops + bops / 64, where any MAC that is not binary is 1 (Bi-Real Net, arXiv 1808.00278).
* `cpu64`: a MAC of b-bit operands is b / 64 for b <= 8, so an 8-bit one 1/8; a real one is 1
  (PokeBNN, arXiv 2112.00133).
* `ace`: MACs times the bits of both operands: 1, 64 for 8-bit, 1024 for float32 (PokeBNN).

Imports NumPy only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from signbit.compiler.ir import CAPTURED_OPS, Graph, Node

PRECISIONS = (1, 8, 32)
# Parameters of a captured node that inference does not need beside the others.
_FOLDED = {"batch_norm": ("mean", "var"), "channels": ("index",)}


@dataclass(frozen=True)
class Count:
    """MACs and parameters by bits of their operands.

    Attributes:
        macs: multiply-accumulates for one image.
        params: parameters that inference needs: weights, their scales where these are not all 1,
            biases, slopes and shifts, and two a channel for a batch norm.
    """

    macs: dict[int, int] = field(default_factory=lambda: dict.fromkeys(PRECISIONS, 0))
    params: dict[int, int] = field(default_factory=lambda: dict.fromkeys(PRECISIONS, 0))

    @property
    def bops(self) -> int:
        return self.macs[1]

    @property
    def flops(self) -> int:
        return self.macs[8] + self.macs[32]

    @property
    def ops(self) -> float:
        return self.flops + self.bops / 64

    @property
    def cpu64(self) -> float:
        return self.macs[1] / 64 + self.macs[8] / 8 + self.macs[32]

    @property
    def ace(self) -> int:
        return sum(macs * bits * bits for bits, macs in self.macs.items())

    @property
    def weight_bytes(self) -> float:
        """Bytes of all parameters at their own precision."""
        return sum(count * bits for bits, count in self.params.items()) / 8

    def to_dict(self) -> dict[str, object]:
        """All counts as JSON can hold them; precisions are keys such as `8-bit`."""
        named = {
            kind: {f"{bits}-bit": count for bits, count in counts.items()}
            for kind, counts in asdict(self).items()
        }
        figures = ("bops", "flops", "ops", "cpu64", "ace", "weight_bytes")
        return named | {name: getattr(self, name) for name in figures}


def count_node(node: Node) -> Count:
    """MACs and parameters of one captured node."""
    found = Count()
    spec = CAPTURED_OPS[node.op]
    for name, array in node.params.items():
        if name == "weight":
            found.params[spec.weight_bits] += array.size
        elif not (name in _FOLDED.get(node.op, ()) or _is_constant(node, name)):
            found.params[32] += array.size
    if spec.weight_bits is not None:
        weight = node.params["weight"]
        _, height, width = node.outputs[0].shape
        found.macs[spec.weight_bits] += int(weight.size) * height * width
    return found


def _is_constant(node: Node, name: str) -> bool:
    """Whether numbers a channel stand in the model's code: scales of 1, `x * 0.5`."""
    array = node.params[name]
    if node.op == "affine":
        return bool((array == array[0]).all())
    return name == "scale" and bool((array == 1).all())


def total(counts: Iterable[Count]) -> Count:
    """The sum of counts."""
    found = Count()
    for count in counts:
        for bits in PRECISIONS:
            found.macs[bits] += count.macs[bits]
            found.params[bits] += count.params[bits]
    return found


def count_layers(graph: Graph) -> list[tuple[str, Count]]:
    """Path and count of every node of a captured graph, in order.

    A layer that is called twice computes twice, but its parameters count once.
    """
    seen: set[str] = set()
    layers = []
    for node in graph.nodes:
        count = count_node(node)
        if node.path in seen:
            count = Count(macs=count.macs)
        seen.add(node.path)
        layers.append((node.path, count))
    return layers


def count(graph: Graph) -> Count:
    """MACs and parameters of a captured graph for one image of the example's size."""
    return total(each for _, each in count_layers(graph))
