"""The fully connected layer of 8 or 4 bits."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signbit.nn.channels import check_channels
from signbit.nn.quant import QuantLayer


class QuantLinear(QuantLayer):
    """Fully connected layer with 8-bit inputs and 8-bit weights, for the classifier.

    ``bits=4``: both have 4 bits. Input [..., I], real; output [..., O]. Formula and gradients:
    :class:`~signbit.nn.quant.QuantLayer`. Raises ValueError for sizes below one, for
    other bits, and for inputs that are not finite in training. Source: arXiv 1712.05877.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, bits: int = 8):
        super().__init__(bits)
        check_channels("QuantLinear", in_features=in_features, out_features=out_features)
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

    def _broadcast(self, channels: Tensor) -> Tensor:
        return channels

    def extra_repr(self) -> str:
        biased = self.bias is not None
        return f"{self.in_features}, {self.out_features}, bias={biased}, bits={self.bits}"
