"""The convolution of 8 or 4 bits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signbit.nn.geometry import check_groups, pair
from signbit.nn.quant import QuantLayer


class QuantConv2d(QuantLayer):
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
        check_groups("QuantConv2d", in_channels, out_channels, groups)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride = pair("stride", stride, 1)
        self.padding = pair("padding", padding, 0)
        self.dilation = pair("dilation", dilation, 1)
        self.groups = groups
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, *self.kernel_size)
        )
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights (He normal over the outputs, as in ResNet) and set the bias to 0."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def _broadcast(self, channels: Tensor) -> Tensor:
        return channels.view(1, -1, 1, 1)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, bias={self.bias is not None}, bits={self.bits}"
        )
