"""The binary convolution."""

import torch.nn.functional as F
from torch import Tensor

from signbit.nn.binary import BinaryLayer
from signbit.nn.geometry import check_groups, pair
from signbit.quantizers import WeightQuantizer


class BinaryConv2d(BinaryLayer):
    """2-D convolution of +-1 with +-1, times a scale per output channel, plus a bias if wanted.

    Input [N, I, H, W], values +-1: put a :class:`~signbit.nn.Sign` or :class:`~signbit.nn.RSign`
    before it. Output [N, O, H', W']: ``y = scale_c * sum(x * sign(w)) + bias_c``; the sum is taken
    over +-1 and so is an exact integer in float32. ``padding_value`` is what stands around the
    image: 0 (contributes nothing), -1 or +1. Gradients: the convolution's own, then those of
    ``weight_quantizer`` (``sign``, ``mean_abs``, ``learned``); the bias has its ordinary one.

    Raises ValueError for a padding value other than -1, 0, +1, groups that do not divide the
    channels, and sizes below one. Source: XNOR-Net, arXiv 1603.05279.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        padding_value: int = 0,
        weight_quantizer: str | WeightQuantizer = "mean_abs",
        latent_clamp: float | None = None,
        bias: bool = False,
    ):
        check_groups("BinaryConv2d", in_channels, out_channels, groups)
        kernel = pair("kernel_size", kernel_size, 1)
        if padding_value not in (-1, 0, 1):
            raise ValueError(f"padding_value must be -1, 0 or 1, got {padding_value!r}")
        shape = (out_channels, in_channels // groups, *kernel)
        super().__init__(shape, weight_quantizer, latent_clamp, bias)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel
        self.stride = pair("stride", stride, 1)
        self.padding = pair("padding", padding, 0)
        self.dilation = pair("dilation", dilation, 1)
        self.groups = groups
        self.padding_value = int(padding_value)

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        padding = self.padding
        if self.padding_value and padding != (0, 0):
            height, width = padding
            x = F.pad(x, (width, width, height, height), value=float(self.padding_value))
            padding = (0, 0)
        return F.conv2d(x, weight, None, self.stride, padding, self.dilation, self.groups)

    def _broadcast(self, channels: Tensor) -> Tensor:
        return channels.view(1, -1, 1, 1)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, padding_value={self.padding_value}{self._repr_tail()}"
        )
