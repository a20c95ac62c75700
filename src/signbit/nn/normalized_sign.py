"""The sign behind an input of known expected variance."""

import math

import torch
from torch import Tensor, nn

from signbit.nn.channels import check_channels, per_channel
from signbit.quantizers import Surrogate, get_surrogate


class NormalizedSign(nn.Module):
    """Binarize activations normalised by their expected, not their measured, variance.

    [N, C, ...] -> the same shape: ``y = sign(beta * (x + bias_c / beta))`` with ``beta = 1 /
    sqrt(expected variance)``, a fixed positive number. ``bias`` [C] starts at 0; with ``channels``
    None there is none. As beta is positive, ``y = sign(x + bias_c / beta)``: the factor only sets
    how wide the surrogate's gradient is. Gradients: the surrogate's at the scaled argument, ``dx =
    beta * dz``, and ``dbias = sum dz``. Raises ValueError for another number of channels and a beta
    that is not positive. Source: A&B BNN, arXiv 2403.03739.
    """

    def __init__(
        self, channels: int | None, beta: float = 1.0, surrogate: str | Surrogate = "sigmoid"
    ):
        super().__init__()
        if channels is not None:
            check_channels("NormalizedSign", channels=channels)
        if not (math.isfinite(beta) and beta > 0):
            raise ValueError(f"NormalizedSign: beta must be a positive number, got {beta}")
        self.channels = channels
        self.beta = float(beta)
        self.surrogate = get_surrogate(surrogate)
        self.bias = None if channels is None else nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        # Added first, as the compiled threshold is: beta * x + bias would round otherwise.
        if self.bias is not None:
            x = x + per_channel(self.bias / self.beta, x, "NormalizedSign")
        return self.surrogate(x * self.beta)

    def extra_repr(self) -> str:
        return f"{self.channels}, beta={self.beta:g}"
