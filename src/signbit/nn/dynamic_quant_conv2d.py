"""The convolution with dynamic ranges."""

from torch import Tensor

from signbit.nn.dynamic_quant import DynamicQuantLayer
from signbit.nn.real_weights import ConvWeights


class DynamicQuantConv2d(ConvWeights, DynamicQuantLayer):
    """2-D convolution whose inputs and weights are rounded between their own extremes.

    Input [N, I, H, W], real; output [N, O, H', W']. Formula and gradients:
    :class:`~signbit.nn.dynamic_quant.DynamicQuantLayer`. Ranges of the input: one for each image
    and channel; of maps of one pixel, one for each image. Ranges of the weight: one for each kernel
    (output and input channel); of 1x1 kernels, one for each output channel. ``limit`` is 1000.
    Padding is with real zeros, which are not rounded. Only for parity with published networks: the
    compiler refuses it.

    Raises ValueError for groups that do not divide the channels, sizes below one, and bits other
    than 8 and 4. Source: BNext, arXiv 2211.12933, as its code has it.
    """

    limit = 1000.0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        bits: int = 8,
        quantize_input: bool = True,
    ):
        super().__init__(bits, quantize_input)
        self._set_shape(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        )

    def _weight_dims(self) -> tuple[int, ...]:
        return (1, 2, 3) if self.kernel_size == (1, 1) else (2, 3)

    def _input_dims(self, x: Tensor) -> tuple[int, ...]:
        return (1, 2, 3) if x.shape[2:] == (1, 1) else (2, 3)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, quantize_input={self.quantize_input}"
