"""The convolution of 8 or 4 bits."""

from torch import Tensor

from signbit.nn.quant import QuantLayer
from signbit.nn.real_weights import ConvWeights


class QuantConv2d(ConvWeights, QuantLayer):
    """2-D convolution with 8-bit inputs and 8-bit weights, for the first layer and for shortcuts.

    ``bits=4``: both have 4 bits. Input [N, I, H, W], real; output [N, O, H', W']. Formula and
    gradients: :class:`~signbit.nn.quant.QuantLayer`. Padding is with real zeros, which the zero
    point represents exactly. Raises ValueError for groups that do not divide the channels, sizes
    below one, other bits, and inputs that are not finite in training. Source: arXiv 1712.05877.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        bits: int = 8,
    ):
        super().__init__(bits)
        self._set_shape(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        )

    def _broadcast(self, channels: Tensor) -> Tensor:
        return channels.view(1, -1, 1, 1)
