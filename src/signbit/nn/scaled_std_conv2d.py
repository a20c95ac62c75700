"""The real-valued convolution with scaled weight standardisation."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signbit.nn.geometry import check_groups, pair
from signbit.quantizers import scaled_standardization


class ScaledStdConv2d(nn.Module):
    """2-D convolution whose real weights are standardised, for networks without normalisation.

    Input [N, I, H, W], real; output [N, O, H', W']: the convolution with ``gain_c *``
    :func:`~signbit.quantizers.scaled_standardization` ``(w)``, zero padding, no bias. ``gain``
    [O, 1, 1, 1] is a parameter that starts at 1. Gradients are the ordinary ones.

    Raises ValueError for groups that do not divide the channels, sizes below one, and a fan-in of
    1, which would be standardised to 0. Source: arXiv 2101.08692, as in A&B BNN, arXiv 2403.03739.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        groups: int = 1,
    ):
        super().__init__()
        check_groups("ScaledStdConv2d", in_channels, out_channels, groups)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride = pair("stride", stride, 1)
        self.padding = pair("padding", padding, 0)
        self.dilation = (1, 1)
        self.groups = groups
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        check_fan_in("ScaledStdConv2d", shape)
        self.weight = nn.Parameter(torch.empty(shape))
        self.gain = nn.Parameter(torch.empty(out_channels, 1, 1, 1))
        self.register_parameter("bias", None)  # as PyTorch's convolutions say that they have none
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights, uniform within 1 / sqrt(fan-in), and set the gain to 1."""
        limit = 1.0 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -limit, limit)
        nn.init.ones_(self.gain)

    def effective_weight(self) -> Tensor:
        """Return the weight that the convolution uses: standardised, times the gain."""
        return self.gain * scaled_standardization(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.effective_weight()
        return F.conv2d(x, weight, None, self.stride, self.padding, groups=self.groups)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, groups={self.groups}"
        )


def check_fan_in(layer: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError if each output of a weight [O, ...] has a single input."""
    if math.prod(shape[1:]) == 1:
        raise ValueError(
            f"{layer}: a channel with a single weight is standardised to 0; use a larger kernel or "
            "fewer groups"
        )
