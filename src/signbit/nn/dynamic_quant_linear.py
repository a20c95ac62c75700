"""The fully connected layer with dynamic ranges."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signbit.nn.channels import check_channels
from signbit.nn.dynamic_quant import DynamicQuantLayer


class DynamicQuantLinear(DynamicQuantLayer):
    """Fully connected layer whose inputs and weights are rounded between their own extremes.

    Input [..., I], real; output [..., O]. Formula and gradients:
    :class:`~signbit.nn.dynamic_quant.DynamicQuantLayer`. Ranges of the input: one for each vector
    of I numbers; of the weight: one for each output. ``limit`` is 25. Only for parity with
    published networks: the compiler refuses it.

    Raises ValueError for sizes below one, and bits other than 8 and 4. Source: BNext, arXiv
    2211.12933, as its code has it.
    """

    limit = 25.0

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        bits: int = 8,
        quantize_input: bool = True,
    ):
        super().__init__(bits, quantize_input)
        check_channels("DynamicQuantLinear", in_features=in_features, out_features=out_features)
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

    def _weight_dims(self) -> tuple[int, ...]:
        return (1,)

    def _input_dims(self, x: Tensor) -> tuple[int, ...]:
        return (-1,)

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))

    def extra_repr(self) -> str:
        return (
            f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, "
            f"bits={self.bits}, quantize_input={self.quantize_input}"
        )
