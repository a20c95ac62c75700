"""What a network asks of hardware, layer by layer: products of matrices, element-wise work, bits.

A `Workload` is what every model of hardware reads: arrays, streaming and photonic accelerators,
energy. It knows nothing of how a layer is written, only how much of what kind there is to do for
one image, and how many bits come and go.

Imports NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

# what element-wise work consists of
KINDS = ("add", "multiply", "compare", "shift", "select", "look_up", "convert")


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
    """

    name: str
    op: str
    product: Product | None
    elementwise: Mapping[str, int]
    weight_bits: int
    input_bits: int
    output_bits: int
    live_bits: int = 0

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
