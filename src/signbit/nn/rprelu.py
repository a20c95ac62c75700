"""The PReLU with learned shifts per channel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signbit.nn.channels import check_channels, per_channel


class RPReLU(nn.Module):
    """PReLU whose kink may move, per channel.

    [N, C, ...] -> the same shape: ``u = x + shift_in_c; y = (u if u >= 0 else slope_c * u) +
    shift_out_c``. Shifts start at 0, slopes at ``init``. Gradients: dx = dy where u > 0, else slope
    dy; dshift_in = sum dx; dslope = sum of u dy where u < 0; dshift_out = sum dy. Raises ValueError
    for another number of channels. Source: ReActNet, arXiv 2003.03488.
    """

    def __init__(self, channels: int, init: float = 0.25):
        super().__init__()
        check_channels("RPReLU", channels=channels)
        self.channels = channels
        self.shift_in = nn.Parameter(torch.zeros(channels))
        self.slope = nn.Parameter(torch.full((channels,), float(init)))
        self.shift_out = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        u = x + per_channel(self.shift_in, x, "RPReLU")
        return F.prelu(u, self.slope) + per_channel(self.shift_out, x, "RPReLU")

    def extra_repr(self) -> str:
        return f"{self.channels}"
