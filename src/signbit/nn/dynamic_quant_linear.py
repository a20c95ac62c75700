"""The fully connected layer with dynamic ranges."""

from torch import Tensor

from signbit.nn.dynamic_quant import DynamicQuantLayer
from signbit.nn.real_weights import LinearWeights


class DynamicQuantLinear(LinearWeights, DynamicQuantLayer):
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
        self._set_shape(in_features, out_features, bias)

    def _weight_dims(self) -> tuple[int, ...]:
        return (1,)

    def _input_dims(self, x: Tensor) -> tuple[int, ...]:
        return (-1,)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, quantize_input={self.quantize_input}"
