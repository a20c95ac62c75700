"""The mask layer of A&B BNN: why a binary network may lose its normalisation for nothing.

The mask layer M squashes its input just before a sign whose backward pass is the identity::

    y = sign(M(x)),   M(x) = 2 s(kx) - 1 = tanh(kx / 2),   s the logistic function

*The gradient.* By the chain rule it is that of M, ``M'(x) = 2k s(kx) (1 - s(kx))``, which is the
bell-shaped gradient of :class:`~signbit.quantizers.SigmoidSign`. Training sees the mask layer.

*The forward pass.* M is odd and strictly increasing, so that M(x) has the sign of x, and a positive
factor in front of it changes no sign either: ``sign(M(c x)) = sign(c x) = sign(x)`` for c > 0.
Inference sees neither the mask layer nor the factor. A network without batch norm divides the input
of each sign by its expected standard deviation; behind a mask layer this division sets the width of
the gradient, and after training it is dropped together with M.

Networks are therefore built with ``SigmoidSign`` (:class:`~signbit.nn.NormalizedSign`), which is
the pair in one step; the layer is here so that the equality can be tested and studied.
"""

import math

import torch
from torch import Tensor, nn


class MaskLayer(nn.Module):
    """The mask layer ``M(x) = 2 s(kx) - 1 = tanh(kx / 2)``, any shape -> the same, in (-1, 1).

    The gradient is the ordinary one, ``dx = dy * 2k s(kx) (1 - s(kx))``; at 0 it is k / 2. Raises
    ValueError for k that is not positive. Only for training: the compiler refuses it. Source: A&B
    BNN, arXiv 2403.03739 (k = 3).
    """

    def __init__(self, k: float = 3.0):
        super().__init__()
        if not (math.isfinite(k) and k > 0):
            raise ValueError(f"MaskLayer: k must be a positive number, got {k}")
        self.k = float(k)

    def forward(self, x: Tensor) -> Tensor:
        # Unlike 2 s(kx) - 1, tanh keeps the sign of numbers so small that s(kx) rounds to 1/2.
        return torch.tanh(0.5 * self.k * x)

    def extra_repr(self) -> str:
        return f"k={self.k:g}"
