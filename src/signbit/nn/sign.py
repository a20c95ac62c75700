"""The sign activation."""

from torch import Tensor, nn

from signbit.quantizers import Surrogate, get_surrogate


class Sign(nn.Module):
    """Binarize activations: ``y = +1 if x >= 0 else -1``, any shape.

    The gradient is that of ``surrogate``: a name known to :func:`signbit.quantizers.get_surrogate`
    (which raises ValueError for others) or a ready :class:`~signbit.quantizers.Surrogate`.
    """

    def __init__(self, surrogate: str | Surrogate = "clipped_identity"):
        super().__init__()
        self.surrogate = get_surrogate(surrogate)

    def forward(self, x: Tensor) -> Tensor:
        return self.surrogate(x)
