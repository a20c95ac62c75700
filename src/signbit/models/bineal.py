"""BiNeal networks: binary weights, and one bit between layers.

[RECON] The paper (arXiv 2202.03716) came without code and does not fix every choice. The block
below is this project's reconstruction, and its accuracies are this project's own::

    bits -> conv3x3(stride) -> BN -> RPReLU -> sign -> conv3x3 -> BN -> a     (main)
    bits -> conv1x1(stride) -> BN -> b                                        (skip)
    INT4 add(a, b) -> BN -> RPReLU -> sign -> bits

The skip path always has a convolution, also where the shape does not change. Both operands of the
add are integers of 4 bits with one shared scale, so at inference each is a ladder of compares on
the binary sum, and the block's output one threshold on a 5-bit integer.
"""

from torch import Tensor, nn

from signbit.models.registry import register_model
from signbit.models.stages import (
    INPUT_SIZES,
    build_stages,
    check_stem,
    check_stem_kernel,
    stage_channels,
)
from signbit.nn import BinaryConv2d, Int4Add, QuantConv2d, QuantLinear, RPReLU, Sign
from signbit.quantizers import OverParameterizedSign, Surrogate

_SOURCE = "BiNeal networks, arXiv 2202.03716"
_STATUS = "reconstruction [RECON]: block and training graph are this project's, not the authors'"


def bineal_conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    over_parameterize: str | None = None,
    dilation: int = 1,
) -> BinaryConv2d:
    """A binary convolution with "same" padding, as BiNeal's blocks have them.

    ``over_parameterize`` is the granularity of :class:`OverParameterizedSign`, or None for plain
    signs. Raises ValueError for an unknown one.
    """
    shape = (out_channels, in_channels, kernel, kernel)
    weights = OverParameterizedSign(shape, over_parameterize) if over_parameterize else "sign"
    return BinaryConv2d(
        in_channels,
        out_channels,
        kernel,
        stride,
        dilation * (kernel // 2),
        dilation,
        weight_quantizer=weights,
    )


class BinealBlock(nn.Module):
    """One BiNeal block, as drawn above: bits [N, I, H, W] -> [N, O, H / stride, W / stride].

    ``over_parameterize`` gives the weights learned factors (:func:`bineal_conv`);
    ``parametric_activations=False`` leaves the RPReLUs out. Neither costs anything at inference.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        surrogate: str | Surrogate = "clipped_identity",
        over_parameterize: str | None = None,
        parametric_activations: bool = True,
    ):
        super().__init__()

        def conv(channels: int, kernel: int, stride: int) -> BinaryConv2d:
            return bineal_conv(channels, out_channels, kernel, stride, over_parameterize)

        def activation() -> nn.Module:
            return RPReLU(out_channels) if parametric_activations else nn.Identity()

        self.conv1 = conv(in_channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.act1 = activation()
        self.sign1 = Sign(surrogate)
        self.conv2 = conv(out_channels, 3, 1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.skip_conv = conv(in_channels, 1, stride)
        self.skip_bn = nn.BatchNorm2d(out_channels)
        self.add = Int4Add()
        self.bn_out = nn.BatchNorm2d(out_channels)
        self.act_out = activation()
        self.sign_out = Sign(surrogate)

    def forward(self, x: Tensor) -> Tensor:
        main = self.sign1(self.act1(self.bn1(self.conv1(x))))
        main = self.bn2(self.conv2(main))
        skip = self.skip_bn(self.skip_conv(x))
        return self.sign_out(self.act_out(self.bn_out(self.add(main, skip))))


class Carry(nn.Module):
    """8-bit features that pass binary blocks, and what the blocks' bits say added to them.

    Where detail is needed, a sign tells too little: of an edge its place, not its strength. Inputs
    what ``features`` reads, and bits [N, bits, H, W]; output [N, channels, H, W].

    Args:
        features: gives [N, channels, H, W].
        bits: channels of the bits.
        channels: of the result.
        over_parameterize: as in :func:`bineal_conv`.
    """

    def __init__(
        self, features: nn.Module, bits: int, channels: int, over_parameterize: str | None
    ):
        super().__init__()
        self.channels = channels
        self.image = features
        self.bits = bineal_conv(bits, channels, 3, 1, over_parameterize)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.PReLU(channels)
        # In the beginning bits are noise, and features are not.
        nn.init.constant_(self.norm.weight, 0.1)

    def forward(self, x: Tensor, bits: Tensor) -> Tensor:
        return self.act(self.image(x) + self.norm(self.bits(bits)))


class Bineal(nn.Module):
    """A BiNeal network: 8-bit stem, four stages of one-bit blocks, 8-bit classifier.

    Input [N, in_channels, H, W]; output logits [N, num_classes].
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        num_classes: int,
        stem: str,
        width: float,
        in_channels: int,
        surrogate: str | Surrogate,
        over_parameterize: str | None,
        parametric_activations: bool,
        stem_kernel: int,
    ):
        super().__init__()
        widths = stage_channels(width)
        kernel = check_stem_kernel(stem_kernel, check_stem(stem))
        self.stem = _stem(stem, kernel, in_channels, widths[0], surrogate)

        def block(inputs: int, outputs: int, stride: int) -> BinealBlock:
            return BinealBlock(
                inputs, outputs, stride, surrogate, over_parameterize, parametric_activations
            )

        self.stages = build_stages(blocks, widths, block)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = QuantLinear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(self.pool(self.stages(self.stem(x)))))

    def extra_repr(self) -> str:
        return f"source: {_SOURCE}; {_STATUS}"


def _stem(
    stem: str, kernel: int, in_channels: int, channels: int, surrogate: str | Surrogate
) -> nn.Sequential:
    if stem == "imagenet":
        layers = [
            QuantConv2d(in_channels, channels, kernel, 2, padding=kernel // 2, bias=False),
            nn.MaxPool2d(3, 2, 1),
        ]
    else:
        layers = [QuantConv2d(in_channels, channels, 3, padding=1, bias=False)]
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), Sign(surrogate))


@register_model(input_sizes=INPUT_SIZES, source=_SOURCE, status=_STATUS)
def bineal18(
    num_classes: int = 1000,
    stem: str = "imagenet",
    width: float = 1.0,
    in_channels: int = 3,
    surrogate: str | Surrogate = "clipped_identity",
    over_parameterize: str | None = None,
    parametric_activations: bool = True,
    stem_kernel: int = 7,
) -> Bineal:
    """BiNeal network on the plan of ResNet-18: blocks [2, 2, 2, 2].

    Input [N, in_channels, 224, 224] with ``stem="imagenet"`` (8-bit 7x7/2 and max-pooling) or [N,
    in_channels, 32, 32] with ``"cifar"`` (8-bit 3x3); other sizes work. ``width`` multiplies stem
    and stages (64, 128, 256, 512), to multiples of 4; the paper's m = 1.5 is ``width=1.5``.
    Over-parameterisation in training: ``over_parameterize`` ("element", "kernel" or "filter") of
    weights, ``parametric_activations`` (RPReLU before each sign) of activations. ``stem_kernel``:
    side of the 8-bit convolution of ``stem="imagenet"``; at 7 it takes half of the network's time,
    at 3 a tenth. Raises ValueError for an unknown stem, surrogate or granularity, an even
    ``stem_kernel`` or a width that is not positive.

    [RECON] A reconstruction from arXiv 2202.03716, which has no public code: the accuracies printed
    there (65.0 % at m = 1, 69.7 % at m = 1.5 on ImageNet) are the authors' and are not claimed for
    this graph.
    """
    return Bineal(
        (2, 2, 2, 2),
        num_classes,
        stem,
        width,
        in_channels,
        surrogate,
        over_parameterize,
        parametric_activations,
        stem_kernel,
    )
