"""What quantised layers have in common whatever their ranges: shapes, real weights, the product."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signbit.nn.channels import check_channels
from signbit.nn.geometry import check_groups, pair


class ConvWeights(nn.Module):
    """The part of a quantised layer that makes it a 2-D convolution; it comes before the other."""

    def _set_shape(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int],
        padding: int | tuple[int, int],
        dilation: int | tuple[int, int],
        groups: int,
        bias: bool,
    ) -> None:
        """Take the geometry, and make and draw the weights. Raises ValueError for bad numbers."""
        check_groups(type(self).__name__, in_channels, out_channels, groups)
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

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, bias={self.bias is not None}, bits={self.bits}"
        )


class LinearWeights(nn.Module):
    """The same of a fully connected layer."""

    def _set_shape(self, in_features: int, out_features: int, bias: bool) -> None:
        """Take the sizes, and make and draw the weights. Raises ValueError for bad numbers."""
        name = type(self).__name__
        check_channels(name, in_features=in_features, out_features=out_features)
        self.in_features = in_features
        self.out_features = out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights, uniform within 1 / sqrt(in_features), and set the bias to 0."""
        limit = 1.0 / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight, -limit, limit)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def extra_repr(self) -> str:
        biased = self.bias is not None
        return f"{self.in_features}, {self.out_features}, bias={biased}, bits={self.bits}"
