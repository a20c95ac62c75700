"""The convolution with dynamic ranges."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signbit.nn.dynamic_quant import DynamicQuantLayer
from signbit.nn.geometry import check_groups, pair


class DynamicQuantConv2d(DynamicQuantLayer):
    """2-D convolution whose inputs and weights are rounded between their own extremes.

    Input [N, I, H, W], real; output [N, O, H', W']. Formula and gradients:
    :class:`~signbit.nn.dynamic_quant.DynamicQuantLayer`. Ranges of the input: one for each image
    and channel; of maps of one pixel, one for each image. Ranges of the weight: one for each kernel
    (output and input channel); of 1x1 kernels, one for each output channel. ``limit`` is 1000.
    Padding is with real zeros, which are not rounded. Only for parity with published networks: the
    compiler refuses it.

    Raises ValueError for groups that do not divide the channels, sizes below one, and bits other
    than 8 and 4. Source: BNext, arXiv 2211.12933, as its code has it.
    """

    limit = 1000.0

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
        quantize_input: bool = True,
    ):
        super().__init__(bits, quantize_input)
        check_groups("DynamicQuantConv2d", in_channels, out_channels, groups)
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

    def _weight_dims(self) -> tuple[int, ...]:
        return (1, 2, 3) if self.kernel_size == (1, 1) else (2, 3)

    def _input_dims(self, x: Tensor) -> tuple[int, ...]:
        return (1, 2, 3) if x.shape[2:] == (1, 1) else (2, 3)

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, bias={self.bias is not None}, bits={self.bits}, "
            f"quantize_input={self.quantize_input}"
        )
