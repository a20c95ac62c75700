"""The binary fully connected layer."""

import torch.nn.functional as F
from torch import Tensor

from signbit.nn.binary import BinaryLayer
from signbit.nn.channels import check_channels
from signbit.quantizers import WeightQuantizer


class BinaryLinear(BinaryLayer):
    """Product of +-1 activations with +-1 weights, times a scale per output, plus a bias if wanted.

    Input [..., I], values +-1; output [..., O]: ``y = scale_o * sum(x * sign(w)) + bias_o``, weight
    [O, I]. The sum is an exact integer in float32. Gradients: the product's own, then those of
    ``weight_quantizer``; the bias has its ordinary one. Raises ValueError for sizes below one.
    Source: XNOR-Net, arXiv 1603.05279.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        weight_quantizer: str | WeightQuantizer = "mean_abs",
        latent_clamp: float | None = None,
        bias: bool = False,
    ):
        check_channels("BinaryLinear", in_features=in_features, out_features=out_features)
        super().__init__((out_features, in_features), weight_quantizer, latent_clamp, bias)
        self.in_features = in_features
        self.out_features = out_features

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight)

    def _broadcast(self, channels: Tensor) -> Tensor:
        return channels

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}{self._repr_tail()}"
