"""The certificate: every operation that a compiled program does, by kind.

It walks the lowered graph, which is what the file holds and the engine runs, and counts what each
step does to one image of the size that the program was compiled for. Operations are those that the
program asks for, on the numbers of the network: a kernel may need fewer additions (it shares sums)
or a few more (it selects by bits), and computes addresses; none of them may multiply numbers where
the program does not. A multiply-accumulate is a multiplication and an addition. Saturation is part
of an addition. A division counts as a multiplication.

Imports NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace

import numpy as np

from signbit.compiler.digits import non_adjacent
from signbit.compiler.ir import Graph, Node, Step, Type

# Kernels of the engine that have no multiplication in their loops, by the names that a profile
# gives them: the functions of native/kernels behind each. A test disassembles these.
MULTIPLICATION_FREE_KERNELS: dict[str, str] = {
    "look_up_int": "binary_conv_integer",
    "look_up_masked_int": "binary_conv_integer",
    "look_up_outputs_int": "binary_outputs_conv_integer",
    "words_int": "words_conv_integer",
    "shift_bytes": "conv_shift",
    "shift_words": "conv_shift",
    "shift_outputs": "conv_shift_outputs",
    "signs": "conv_signs",
    "pointwise_i16": "pointwise_i16",
    "max_pool_i16": "max_pool_i16",
    "avg_pool_i16": "avg_pool_i16",
    "global_sum_i16": "global_sum_i16",
    "channels_i16": "channels_i16",
    "max_pool_b1": "max_pool_b1",
    "channels_b1": "channels_b1",
}
# What moves numbers and computes none: images in, copies of maps in other layouts, results out.
_MOVES = ("in_place", "import", "import_or_table", "export", "pixel_table")
_REPACK = "repack"


@dataclass(frozen=True)
class Operations:
    """Counts for one image.

    Attributes:
        additions: additions and subtractions, saturating ones too.
        shifts: by constants.
        comparisons: also those of maxima and of a clip.
        bit_operations: on single bits of a map.
        look_ups: in tables of constants.
        multiplications: and divisions.
    """

    additions: int = 0
    shifts: int = 0
    comparisons: int = 0
    bit_operations: int = 0
    look_ups: int = 0
    multiplications: int = 0

    def __add__(self, other: Operations) -> Operations:
        return Operations(*(a + b for a, b in zip(self.counts(), other.counts(), strict=True)))

    def __mul__(self, times: int) -> Operations:
        return Operations(*(count * times for count in self.counts()))

    def counts(self) -> list[int]:
        """The counts in the order of the attributes."""
        return [getattr(self, f.name) for f in fields(self)]

    def to_dict(self) -> dict[str, int]:
        """The counts by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Layer:
    """A node of the program.

    Attributes:
        path: of the layer that it came from.
        op: its operation.
        operations: what it does for one image.
        kernel: of the engine, None where the program was not opened.
    """

    path: str
    op: str
    operations: Operations
    kernel: str | None = None

    @property
    def multiplies(self) -> bool:
        """Whether the program has it multiply."""
        return self.operations.multiplications > 0

    @property
    def unsure(self) -> bool:
        """Whether it has nothing to multiply, but runs by a kernel that is not known not to."""
        return not self.multiplies and not _is_free(self.kernel)


def _is_free(kernel: str | None) -> bool:
    """Whether a kernel is known to multiply nothing; without one there is nothing to say."""
    if kernel is None or kernel in _MOVES or kernel.startswith(_REPACK):
        return True
    return kernel in MULTIPLICATION_FREE_KERNELS


@dataclass(frozen=True)
class Certificate:
    """What a program does for one image.

    Attributes:
        layers: node by node, in the order of execution.
    """

    layers: list[Layer]

    @property
    def total(self) -> Operations:
        """The sum over all layers."""
        return sum((layer.operations for layer in self.layers), Operations())

    @property
    def multiplying(self) -> list[str]:
        """The paths of the layers that multiply."""
        return list(dict.fromkeys(layer.path for layer in self.layers if layer.multiplies))

    @property
    def unsure(self) -> list[str]:
        """The paths of the layers whose kernels are not known to multiply nothing."""
        return list(dict.fromkeys(layer.path for layer in self.layers if layer.unsure))

    @property
    def multiplication_free(self) -> bool:
        """Whether neither the program nor any kernel that runs it multiplies."""
        return not (self.multiplying or self.unsure)

    def to_dict(self) -> dict[str, object]:
        """The certificate as JSON can hold it."""
        return {
            "total": self.total.to_dict(),
            "multiplication_free": self.multiplication_free,
            "multiplying": self.multiplying,
            "unsure": self.unsure,
            "layers": [
                {"layer": la.path, "operation": la.op, "kernel": la.kernel}
                | la.operations.to_dict()
                for la in self.layers
            ],
        }


def certify(graph: Graph, plan: Iterable[dict[str, object]] | None = None) -> Certificate:
    """Count the operations of a lowered graph, for one image of the size in its values.

    `plan` has the steps of a session that runs it, as `Session.profile` gives them: then the
    kernels that do the work are checked too, and steps that only the engine has (copies of maps in
    other layouts) are listed. Images are taken as uint8 pixels where the program normalises them.
    Raises ValueError for the plan of another program.
    """
    layers = [Layer(node.path, node.op, count_node(graph, node)) for node in graph.nodes]
    if plan is None:
        return Certificate(layers)
    # the plan has the nodes in their order, and steps of the engine's own between them
    waiting = list(zip(layers, graph.nodes, strict=True))
    found = []
    for step in plan:
        path, op, kernel = (str(step[key]) for key in ("name", "op", "kernel"))
        if not waiting or (waiting[0][0].path, waiting[0][0].op) != (path, op):
            found.append(Layer(path, op, Operations(), kernel))
            continue
        layer, node = waiting.pop(0)
        if is_pixel_table(graph, node):
            kernel = "pixel_table"
        found.append(replace(layer, kernel=kernel))
    if waiting:
        raise ValueError(f"the plan runs another program: it has no {waiting[0][0].path}")
    return Certificate(found)


def is_pixel_table(graph: Graph, node: Node) -> bool:
    """Whether the engine does what the node does by looking pixels up."""
    kinds = [step.kind for step in node.epilogue]
    alone = len(graph.consumers(graph.input)) == 1 and kinds in (["quant8"], ["quant16"])
    return graph.mean is not None and node.inputs[0] is graph.input and alone


def count_node(graph: Graph, node: Node) -> Operations:
    """The operations of one node of a lowered graph, for one image."""
    channels, height, width = node.outputs[0].shape
    numbers = channels * height * width
    found = _OPERATIONS[node.op](node, numbers)
    if is_pixel_table(graph, node):
        return Operations(look_ups=numbers)  # 256 entries a channel
    for step in node.epilogue:
        found += _count_step(step, height * width, numbers)
    return found


# --- operations ---


def _taps(node: Node) -> int:
    return node.attrs["kernel_h"] * node.attrs["kernel_w"]


def _conv_b1(node: Node, numbers: int) -> Operations:
    # a look-up matches four inputs with the weights of two outputs; its result is added
    a = node.attrs
    nibbles = _taps(node) * -(-(a["in_channels"] // a["groups"]) // 4)
    look_ups = nibbles * -(-numbers // 2)
    # a sum is twice the matches less the taps inside the image
    return Operations(additions=look_ups + numbers, shifts=numbers, look_ups=look_ups)


def _conv_q8(node: Node, numbers: int) -> Operations:
    macs = node.params["weight"][0].size * numbers
    return Operations(additions=macs, multiplications=macs)


def _conv_shift(node: Node, numbers: int) -> Operations:
    weight = node.params["weight"]
    digits = non_adjacent(weight.reshape(len(weight), -1)) != 0  # [O, taps, places]
    pixels = numbers // len(weight)
    places = digits.any(1)
    shifts = int(places[:, 1:].sum())
    return Operations(additions=int(digits.sum()) * pixels, shifts=shifts * pixels)


def _max_pool(node: Node, numbers: int) -> Operations:
    if node.inputs[0].type == Type.B1:
        return Operations(bit_operations=_taps(node) * numbers)
    return Operations(comparisons=_taps(node) * numbers)


def _avg_pool(node: Node, numbers: int) -> Operations:
    additions = (_taps(node) - 1) * numbers
    if node.inputs[0].type == Type.I16:
        return Operations(additions=additions, shifts=numbers)
    return Operations(additions=additions, multiplications=numbers)


def _pixels(node: Node) -> int:
    _, height, width = node.inputs[0].shape
    return height * width


def _global_avg_pool(node: Node, numbers: int) -> Operations:
    return Operations(additions=_pixels(node) * numbers, multiplications=numbers)


def _global_sum(node: Node, numbers: int) -> Operations:
    return Operations(additions=_pixels(node) * numbers)


def _adaptive_pool(node: Node, numbers: int) -> Operations:
    a = node.attrs
    _, height, width = node.inputs[0].shape
    window = (-(-height // a["out_h"]) + 1) * (-(-width // a["out_w"]) + 1)  # at most
    if a["take_max"]:
        return Operations(comparisons=window * numbers)
    return Operations(additions=window * numbers, multiplications=numbers)


def _resize(node: Node, numbers: int) -> Operations:
    if node.attrs["mode"] == 0:
        return Operations()
    return Operations(additions=3 * numbers, multiplications=6 * numbers)


def _nothing(node: Node, numbers: int) -> Operations:
    return Operations()


_OPERATIONS: dict[str, Callable[[Node, int], Operations]] = {
    "conv_b1": _conv_b1,
    "conv_q8": _conv_q8,
    "conv_shift": _conv_shift,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": _global_avg_pool,
    "global_sum": _global_sum,
    "adaptive_pool": _adaptive_pool,
    "resize": _resize,
    "pointwise": _nothing,
    "channels": _nothing,
    "pixel_shuffle": _nothing,
}

# --- steps, for one number ---

_STEPS: dict[str, Operations] = {
    "affine": Operations(additions=1, multiplications=1),
    "add": Operations(additions=1),
    "rprelu": Operations(additions=2, comparisons=1, multiplications=1),
    "prelu": Operations(comparisons=1, multiplications=1),
    "quant4_shift": Operations(additions=1, shifts=1, comparisons=2, multiplications=1),
    "quant4_ladder": Operations(additions=15, comparisons=15),
    "store": Operations(),
    "threshold": Operations(comparisons=2, bit_operations=2),
    "sign": Operations(comparisons=1),
    "quant8": Operations(additions=1, comparisons=2, multiplications=1),
    "quant16": Operations(comparisons=2, multiplications=1),
    "mul": Operations(multiplications=1),
    "clip": Operations(comparisons=2),
    # docs/numerics.md spells it out; the quotient at its end is one
    "sigmoid": Operations(additions=10, shifts=1, comparisons=2, multiplications=12),
    "bias": Operations(additions=1),
}


def _count_step(step: Step, pixels: int, numbers: int) -> Operations:
    if step.kind not in ("shift_sum", "shift_prelu"):
        return _STEPS[step.kind] * numbers
    used = step.params["signs"] != 0
    shifts = int((used & (step.params["shifts"] != 0)).sum())
    additions = int(np.maximum(used.sum(1) - 1, 0).sum())
    found = Operations(additions=additions, shifts=shifts) * pixels
    if step.kind == "shift_prelu":
        found += Operations(additions=2, comparisons=1) * numbers
    return found
