"""The RPReLU whose slopes are powers of two."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signbit.nn.channels import check_channels, per_channel
from signbit.quantizers import round_half_even


class QRPReLU(nn.Module):
    """RPReLU with slopes that are powers of two: a shift in place of the multiplication.

    [N, C, ...] -> the same shape: ``u = x + shift_in_c; y = (u if u >= 0 else 2**round(L_c) * u) +
    shift_out_c``, halves of L rounded to even. ``exponent`` L is a real parameter [C] that starts
    at ``init``; the shifts start at 0. Gradients: those of :class:`~signbit.nn.RPReLU`, and
    straight through the rounding ``dL = ln2 * 2**round(L) * dslope``. Raises ValueError for another
    number of channels. Source: A&B BNN, arXiv 2403.03739.
    """

    def __init__(self, channels: int, init: float = -3.0):
        super().__init__()
        check_channels("QRPReLU", channels=channels)
        self.channels = channels
        self.shift_in = nn.Parameter(torch.zeros(channels))
        self.exponent = nn.Parameter(torch.full((channels,), float(init)))
        self.shift_out = nn.Parameter(torch.zeros(channels))

    @property
    def slope(self) -> Tensor:
        """The slopes [C], exactly powers of two."""
        return torch.exp2(round_half_even(self.exponent))

    def forward(self, x: Tensor) -> Tensor:
        u = x + per_channel(self.shift_in, x, "QRPReLU")
        return F.prelu(u, self.slope) + per_channel(self.shift_out, x, "QRPReLU")

    def extra_repr(self) -> str:
        return f"{self.channels}"
