"""The sign with a learned threshold per channel."""

import torch
from torch import Tensor, nn

from signbit.nn.channels import check_channels, per_channel
from signbit.quantizers import Surrogate, get_surrogate


class RSign(nn.Module):
    """Binarize activations against a learned threshold per channel.

    [N, C, ...] -> the same shape: ``y = sign(x + bias_c)``, bias [C] starting at 0. With
    ``channels`` 1 all channels share one threshold, as in ``torch.nn.PReLU``. Gradients: the
    surrogate's to x, and its sum over everything but the channel to the bias. Raises ValueError for
    another number of channels. Source: ReActNet, arXiv 2003.03488.
    """

    def __init__(self, channels: int, surrogate: str | Surrogate = "clipped_identity"):
        super().__init__()
        check_channels("RSign", channels=channels)
        self.channels = channels
        self.surrogate = get_surrogate(surrogate)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias if self.channels == 1 else per_channel(self.bias, x, "RSign")
        return self.surrogate(x + bias)

    def extra_repr(self) -> str:
        return f"{self.channels}"
