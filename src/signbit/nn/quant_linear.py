"""The fully connected layer of 8 or 4 bits."""

from torch import Tensor

from signbit.nn.quant import QuantLayer
from signbit.nn.real_weights import LinearWeights


class QuantLinear(LinearWeights, QuantLayer):
    """Fully connected layer with 8-bit inputs and 8-bit weights, for the classifier.

    ``bits=4``: both have 4 bits. Input [..., I], real; output [..., O]. Formula and gradients:
    :class:`~signbit.nn.quant.QuantLayer`. Raises ValueError for sizes below one, for
    other bits, and for inputs that are not finite in training. Source: arXiv 1712.05877.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, bits: int = 8):
        super().__init__(bits)
        self._set_shape(in_features, out_features, bias)

    def _broadcast(self, channels: Tensor) -> Tensor:
        return channels
