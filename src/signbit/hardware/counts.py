"""Operation counts of captured graphs: MACs and parameters by precision, and multiplications.

The counts are those of the layers as the model has them, whatever the compiler fuses afterwards.
One MAC is one operation, not two; convolutions and linear layers count, element-wise layers and
pooling do not. From them follow the field's summaries:

* `bops`: MACs of one bit with one bit. `flops`: all other MACs, those of 4 and 8 bits too.
* `ops` = flops + bops / 64, where any MAC that is not binary is 1 (Bi-Real Net, arXiv 1808.00278).
* `cpu64`: a MAC of b-bit operands is b / 64 for b <= 8, so an 8-bit one 1/8, a 4-bit one
  1/16; a real one is 1 (PokeBNN, arXiv 2112.00133). Of two widths the wider one counts.
* `ace`: MACs times the bits of both operands: 1, 16 for 4-bit, 64 for 8-bit, 1024 for float32
  (PokeBNN).

A MAC of binary weights with real inputs, as in A&B BNN's downsampling, is an addition of real
numbers: `additions`, one of the `flops`, 1 in `cpu64` and 32 in `ace`.

`mo` and `multiplications` are explained in `signbit.hardware.multiplications`.

Imports NumPy only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from signbit.compiler.ir import CAPTURED_OPS, Graph, Node
from signbit.hardware.multiplications import count_multiplications, is_addition, macs

PRECISIONS = (1, 4, 8, 32)
# Parameters of a captured node that inference does not need beside the others.
_FOLDED = {"batch_norm": ("mean", "var"), "channels": ("index",)}


@dataclass(frozen=True)
class Operations:
    """MACs by the bits of both operands, and what the field makes of them.

    Attributes:
        macs: (bits of a weight, bits of an input) to multiply-accumulates for one image.
    """

    macs: Mapping[tuple[int, int], int]

    @property
    def bops(self) -> int:
        return sum(macs for widths, macs in self.macs.items() if widths == (1, 1))

    @property
    def flops(self) -> int:
        return sum(macs for widths, macs in self.macs.items() if widths != (1, 1))

    @property
    def ops(self) -> float:
        return self.flops + self.bops / 64

    @property
    def cpu64(self) -> float:
        widest = ((max(widths), macs) for widths, macs in self.macs.items())
        return sum(macs * bits / 64 if bits <= 8 else macs for bits, macs in widest)

    @property
    def ace(self) -> int:
        return sum(macs * weight * bits for (weight, bits), macs in self.macs.items())

    def to_dict(self) -> dict[str, object]:
        """MACs by `1x1`, `8x8` (weight x input), and the summaries, as JSON can hold them."""
        named = {f"{w}x{a}": macs for (w, a), macs in sorted(self.macs.items()) if macs}
        summaries = ("bops", "flops", "ops", "cpu64", "ace")
        return {"macs": named} | {name: getattr(self, name) for name in summaries}


@dataclass(frozen=True)
class Count:
    """MACs and parameters by bits of their operands, and multiplications by kind.

    Attributes:
        macs: multiply-accumulates for one image.
        params: parameters that inference needs: weights, their scales where these are not all 1,
            biases, slopes and shifts, and two a channel for a batch norm.
        additions: MACs of binary weights with real inputs; not among `macs`.
        mo: multiplications between stem and head by A&B BNN's convention.
        multiplications: all multiplications, kind (`multiplications.KINDS`) to number.
    """

    macs: dict[int, int] = field(default_factory=lambda: dict.fromkeys(PRECISIONS, 0))
    params: dict[int, int] = field(default_factory=lambda: dict.fromkeys(PRECISIONS, 0))
    additions: int = 0
    mo: int = 0
    multiplications: dict[str, int] = field(default_factory=dict)

    @property
    def operations(self) -> Operations:
        """The MACs by the widths of both operands, and the field's summaries of them."""
        by_widths = {(bits, bits): macs for bits, macs in self.macs.items()}
        return Operations(by_widths | {(1, 32): self.additions})

    @property
    def bops(self) -> int:
        return self.operations.bops

    @property
    def flops(self) -> int:
        return self.operations.flops

    @property
    def ops(self) -> float:
        return self.operations.ops

    @property
    def cpu64(self) -> float:
        return self.operations.cpu64

    @property
    def ace(self) -> int:
        return self.operations.ace

    @property
    def strict_mo(self) -> int:
        """All multiplications, stem, head and scales of weights included."""
        return sum(self.multiplications.values())

    @property
    def weight_bytes(self) -> float:
        """Bytes of all parameters at their own precision."""
        return sum(count * bits for bits, count in self.params.items()) / 8

    def to_dict(self) -> dict[str, object]:
        """All counts as JSON can hold them; precisions are keys such as `8-bit`."""
        named = {
            kind: {f"{bits}-bit": count for bits, count in counts.items()}
            for kind, counts in (("macs", self.macs), ("params", self.params))
        }
        figures = (
            "additions", "bops", "flops", "ops", "cpu64", "ace", "weight_bytes", "mo", "strict_mo",
            "multiplications",
        )  # fmt: skip
        return named | {name: getattr(self, name) for name in figures}


def count_node(node: Node) -> Count:
    """MACs and parameters of one captured node, without its multiplications."""
    found = Count(additions=macs(node) if is_addition(node) else 0)
    weight_bits = node.attrs.get("bits", CAPTURED_OPS[node.op].weight_bits)
    for name, array in node.params.items():
        if name == "weight":
            found.params[weight_bits] += array.size
        elif not (name in _FOLDED.get(node.op, ()) or _is_constant(node, name)):
            found.params[32] += array.size
    if weight_bits is not None and not found.additions:
        found.macs[weight_bits] += macs(node)
    return found


def _is_constant(node: Node, name: str) -> bool:
    """Whether numbers a channel stand in the model's code: scales of 1, `x * 0.5`."""
    array = node.params[name]
    if node.op == "affine":
        return bool((array == array[0]).all())
    return name == "scale" and bool((array == 1).all())


def total(counts: Iterable[Count]) -> Count:
    """The sum of counts."""
    counts = list(counts)
    multiplications: Counter[str] = Counter()
    for each in counts:
        multiplications.update(each.multiplications)
    return Count(
        {bits: sum(each.macs[bits] for each in counts) for bits in PRECISIONS},
        {bits: sum(each.params[bits] for each in counts) for bits in PRECISIONS},
        sum(each.additions for each in counts),
        sum(each.mo for each in counts),
        dict(multiplications),
    )


def count_layers(graph: Graph) -> list[tuple[str, Count]]:
    """Path and count of every node of a captured graph, in order.

    A layer that is called twice computes twice, but its parameters count once.
    """
    seen: set[str] = set()
    layers = []
    for node, multiplied in zip(graph.nodes, count_multiplications(graph), strict=True):
        count = replace(count_node(node), mo=multiplied.mo, multiplications=multiplied.strict)
        if node.path in seen:
            count = replace(count, params=dict.fromkeys(PRECISIONS, 0))
        seen.add(node.path)
        layers.append((node.path, count))
    return layers


def count(graph: Graph) -> Count:
    """All counts of a captured graph for one image of the example's size."""
    return total(each for _, each in count_layers(graph))
