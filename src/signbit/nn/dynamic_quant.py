"""What layers with dynamic ranges share: fake quantisation between each tensor's own extremes.

For parity with published networks alone: BNext's released quantised ones take the range of every
input, and of every kernel, anew in each pass, so that no integers are fixed that an engine could
multiply. What is to be compiled uses :mod:`signbit.nn.quant`.
"""

import torch
from torch import Tensor, nn

from signbit.nn.precision import at_least_float32, without_autocast
from signbit.nn.quant import check_bits
from signbit.quantizers import minmax_quantize


class DynamicQuantLayer(nn.Module):
    """A layer whose weights and inputs are rounded to 2^bits values between their own extremes.

    Both go through :func:`~signbit.quantizers.minmax_quantize`, over the dimensions that
    ``_weight_dims`` and ``_input_dims`` say; ``quantize_input=False`` leaves inputs as they are,
    for images, which have 8 bits already. Inputs are first brought between ``-limit`` and
    ``limit``. Gradients pass straight through the roundings, and are 0 for inputs beyond the limit.
    The state dict holds ``weight`` and ``bias`` alone. The compiler refuses these layers.

    Raises ValueError for bits other than 8 and 4. Source: BNext, arXiv 2211.12933, as its code has
    it.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    limit: float

    def __init__(self, bits: int = 8, quantize_input: bool = True):
        super().__init__()
        check_bits(type(self).__name__, bits)
        self.bits = bits
        self.quantize_input = bool(quantize_input)

    def _weight_dims(self) -> tuple[int, ...]:
        """The dimensions over which one range of the weight is taken."""
        raise NotImplementedError

    def _input_dims(self, x: Tensor) -> tuple[int, ...]:
        """The dimensions over which one range of the input is taken."""
        raise NotImplementedError

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Apply the layer's linear map, and add the bias."""
        raise NotImplementedError

    def effective_weight(self) -> Tensor:
        """Return the weight that the layer uses: rounded, in real numbers of 32 bits or more."""
        return minmax_quantize(at_least_float32(self.weight), self.bits, self._weight_dims())

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            x = at_least_float32(x)
            if self.quantize_input:
                x = torch.clamp(x, -self.limit, self.limit)
                x = minmax_quantize(x, self.bits, self._input_dims(x))
            bias = None if self.bias is None else self.bias.to(x.dtype)
            return self._product(x, self.effective_weight(), bias)
