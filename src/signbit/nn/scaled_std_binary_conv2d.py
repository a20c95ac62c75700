"""The binary convolution with scaled weight standardisation."""

from torch import nn

from signbit.nn.binary_conv2d import BinaryConv2d
from signbit.nn.scaled_std_conv2d import check_fan_in
from signbit.quantizers import ScaledStdSign


class ScaledStdBinaryConv2d(BinaryConv2d):
    """Binary convolution whose latent weights are standardised first, as in A&B BNN.

    A :class:`~signbit.nn.BinaryConv2d` with the binarizer
    :class:`~signbit.quantizers.ScaledStdSign`, which has the formulas and gradients: ``y_c = s_c *
    gain_c * sum(x * sign(v))`` with the standardised latent weight v. Without binary weights (stage
    one of training) it convolves with ``gain_c * v``. ``scale="power_of_two"`` rounds ``s_c *
    gain_c`` to a power of two [RECON]. The input may be real-valued too, as in A&B BNN's
    downsampling shortcut: then its products are additions and subtractions.

    Raises ValueError for an unknown ``scale``, groups that do not divide the channels, sizes below
    one, and a fan-in of 1, which would be standardised to 0. Source: A&B BNN, arXiv 2403.03739.
    """

    weight_quantizer: ScaledStdSign

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        groups: int = 1,
        scale: str = "real",
    ):
        quantizer = ScaledStdSign(out_channels, scale)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            groups=groups,
            weight_quantizer=quantizer,
        )
        check_fan_in("ScaledStdBinaryConv2d", tuple(self.weight.shape))

    def reset_parameters(self) -> None:
        """Draw new latent weights, uniform in 0..0.001 as the authors do, and set the gain to 1."""
        nn.init.uniform_(self.weight, 0.0, 1e-3)
        nn.init.ones_(self.gain)

    @property
    def gain(self) -> nn.Parameter:
        """The learned factor of each output channel, [O, 1, 1, 1]."""
        return self.weight_quantizer.gain
