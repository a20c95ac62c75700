"""ResNet-18 in full precision: the network that the binary ones are compared with."""

from torch import Tensor, nn

from signbit.models.registry import register_model
from signbit.models.stages import (
    INPUT_SIZES,
    build_stages,
    check_stem,
    check_stem_kernel,
    stage_channels,
)

_SOURCE = "ResNet, arXiv 1512.03385"


def _conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [N, I, H, W] -> [N, O, H / stride, W / stride]."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = _conv_bn(in_channels, out_channels, 3, stride)
        self.act1 = nn.ReLU()
        self.conv2 = _conv_bn(out_channels, out_channels, 3, 1)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else _conv_bn(in_channels, out_channels, 1, stride)
        self.act2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act2(self.conv2(self.act1(self.conv1(x))) + self.shortcut(x))


class ResNet(nn.Module):
    """A ResNet of basic blocks. Input [N, in_channels, H, W]; output logits [N, num_classes]."""

    def __init__(
        self,
        blocks: tuple[int, ...],
        num_classes: int,
        stem: str,
        width: float,
        in_channels: int,
        stem_kernel: int = 7,
    ):
        super().__init__()
        widths = stage_channels(width)
        kernel = check_stem_kernel(stem_kernel, check_stem(stem))
        if stem == "imagenet":
            first = [_conv_bn(in_channels, widths[0], kernel, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        else:
            first = [_conv_bn(in_channels, widths[0], 3, 1), nn.ReLU()]
        self.stem = nn.Sequential(*first)
        self.stages = build_stages(blocks, widths, BasicBlock)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(widths[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(self.pool(self.stages(self.stem(x)))))


@register_model(
    input_sizes=INPUT_SIZES, source=_SOURCE, status="the authors' network, in full precision"
)
def resnet18(
    num_classes: int = 1000,
    stem: str = "imagenet",
    width: float = 1.0,
    in_channels: int = 3,
    stem_kernel: int = 7,
) -> ResNet:
    """ResNet-18 in full precision, the comparison network; nothing binary, not for compiling.

    Input [N, in_channels, 224, 224] with ``stem="imagenet"`` or [N, in_channels, 32, 32] with
    ``"cifar"``; other sizes work. ``width`` multiplies stem and stages (64, 128, 256, 512), to
    multiples of 4; ``stem_kernel`` is the side of the first convolution of ``stem="imagenet"``.
    Raises ValueError for an unknown stem, an even ``stem_kernel`` or a width that is not positive.
    Source: arXiv 1512.03385.
    """
    return ResNet((2, 2, 2, 2), num_classes, stem, width, in_channels, stem_kernel)
