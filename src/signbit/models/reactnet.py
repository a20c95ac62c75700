"""ReActNet on the plan of ResNet-18: every binary convolution has a real-valued shortcut.

One layer holds one convolution::

    x -> RSign -> BinaryConv2d 3x3(stride) -> BN -> + -> RPReLU -> out
    x -> identity, or where the stride is 2: AvgPool 2x2 -> 8-bit 1x1 -> BN --^
"""

from torch import Tensor, nn

from signbit.models.registry import register_model
from signbit.models.stages import INPUT_SIZES, build_stages, check_stem, stage_channels
from signbit.nn import BinaryConv2d, QuantConv2d, QuantLinear, RPReLU, RSign
from signbit.quantizers import Surrogate

_SOURCE = "ReActNet, arXiv 2003.03488"
_STATUS = (
    "the authors' layer; stem, 1x1 downsample and classifier are 8-bit here, real in the paper"
)


class ReActLayer(nn.Module):
    """One ReActNet layer, as drawn above: real [N, I, H, W] -> [N, O, H / stride, W / stride].

    With stride 2 height and width must be even: 2x2 average pooling drops the last row of an odd
    one, and the shortcut then no longer fits the convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, surrogate: str | Surrogate
    ):
        super().__init__()
        self.sign = RSign(in_channels, surrogate)
        self.conv = BinaryConv2d(in_channels, out_channels, 3, stride, 1)
        self.bn = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Identity() if stride == 1 else _downsample(in_channels, out_channels)
        self.act = RPReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(self.sign(x))) + self.shortcut(x))


def _downsample(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.AvgPool2d(2, 2),
        QuantConv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class ReActNet(nn.Module):
    """A ReActNet: 8-bit stem, four stages of layers with a real-valued stream, 8-bit classifier.

    Input [N, in_channels, H, W]; output logits [N, num_classes].
    """

    def __init__(
        self,
        layers: tuple[int, ...],
        num_classes: int,
        stem: str,
        width: float,
        in_channels: int,
        surrogate: str | Surrogate,
    ):
        super().__init__()
        widths = stage_channels(width)
        self.stem = _stem(check_stem(stem), in_channels, widths[0])

        def block(inputs: int, outputs: int, stride: int) -> ReActLayer:
            return ReActLayer(inputs, outputs, stride, surrogate)

        self.stages = build_stages(layers, widths, block)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = QuantLinear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(self.pool(self.stages(self.stem(x)))))

    def extra_repr(self) -> str:
        return f"source: {_SOURCE}; {_STATUS}"


def _stem(stem: str, in_channels: int, channels: int) -> nn.Sequential:
    if stem == "imagenet":
        return nn.Sequential(
            QuantConv2d(in_channels, channels, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(channels),
            nn.MaxPool2d(3, 2, 1),
        )
    return nn.Sequential(
        QuantConv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
    )


@register_model(input_sizes=INPUT_SIZES, source=_SOURCE, status=_STATUS)
def reactnet18(
    num_classes: int = 1000,
    stem: str = "imagenet",
    width: float = 1.0,
    in_channels: int = 3,
    surrogate: str | Surrogate = "approx_sign",
) -> ReActNet:
    """ReActNet-18: layers [4, 4, 4, 4], weights ``mean|w| * sign(w)``, real-valued shortcuts.

    Input [N, in_channels, 224, 224] with ``stem="imagenet"`` (8-bit 7x7/2 and max-pooling) or [N,
    in_channels, 32, 32] with ``"cifar"`` (8-bit 3x3). Other sizes work if the maps entering stages
    two to four are even: multiples of 32 for ``imagenet``, of 8 for ``cifar``. ``width`` multiplies
    stem and stages (64, 128, 256, 512), to multiples of 4. Raises ValueError for an unknown stem or
    surrogate or a width that is not positive. Source: arXiv 2003.03488.
    """
    return ReActNet((4, 4, 4, 4), num_classes, stem, width, in_channels, surrogate)
