"""The leaky ReLU with learned shifts per channel."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signbit.nn.channels import check_channels, per_channel


class RLeakyReLU(nn.Module):
    """RPReLU with one fixed slope: only the shifts are learned.

    [N, C, ...] -> the same shape: ``u = x + shift_in_c; y = (u if u >= 0 else slope * u) +
    shift_out_c``. Shifts start at 0. Gradients: dx = dy where u > 0, else slope dy; dshift_in = sum
    dx; dshift_out = sum dy. Raises ValueError for another number of channels or a slope that is not
    finite. Source: the ablation of A&B BNN, arXiv 2403.03739 (slopes 2^-3 and 2^-7).
    """

    def __init__(self, channels: int, slope: float = 2.0**-3):
        super().__init__()
        check_channels("RLeakyReLU", channels=channels)
        if not math.isfinite(slope):
            raise ValueError(f"RLeakyReLU: slope must be finite, got {slope}")
        self.channels = channels
        self.slope = float(slope)
        self.shift_in = nn.Parameter(torch.zeros(channels))
        self.shift_out = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        u = x + per_channel(self.shift_in, x, "RLeakyReLU")
        return F.leaky_relu(u, self.slope) + per_channel(self.shift_out, x, "RLeakyReLU")

    def extra_repr(self) -> str:
        return f"{self.channels}, slope={self.slope:g}"
