"""CenterNet: objects as points on a map a quarter of the image's size (arXiv 1904.07850).

A backbone gives maps of strides 4 to 32. A decoder goes back to stride 4: each step enlarges the
map, joins the backbone's map of that stride, and computes one block. The head reads that map and
gives three: a heatmap a class, whose peaks are objects' centres, their sizes, and the centres'
offsets within a pixel of the map.

[RECON] BiNeal networks (arXiv 2202.03716) detect with CenterNet on ResNet-18, and with or without
binary head; how theirs comes back to stride 4 is not public. Here the decoder is made of
:class:`~signbit.models.bineal.BinealBlock`, and bits are enlarged, joined and read as bits: no map
between stem and head is real-valued.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from signbit.models.backbone import Backbone
from signbit.models.bineal import BinealBlock
from signbit.models.registry import register_model
from signbit.models.resnet import BasicBlock
from signbit.models.stages import scaled_channels
from signbit.nn import QuantConv2d
from signbit.quantizers import Surrogate, nearest_name

STRIDE = 4  # pixels of the image a pixel of the outputs
HEADS = ("real", "binary")
UPSAMPLES = ("shuffle", "nearest")
PRIOR = 0.1  # what a fresh heatmap says everywhere, as a probability
INPUT_SIZES = {"imagenet": (3, 448, 672), "cifar": (3, 96, 128)}

_SOURCE = "CenterNet, arXiv 1904.07850; BiNeal networks, arXiv 2202.03716"
_STATUS = "reconstruction [RECON]: decoder and head are this project's, not the authors'"


class CenterNet(nn.Module):
    """Backbone, decoder and head as described above.

    Input [N, in_channels, H, W], sides multiples of :attr:`multiple`. Output a tuple of float maps
    at stride 4: heatmap logits [N, num_classes, H / 4, W / 4], sizes [N, 2, ...] (width, height)
    and offsets [N, 2, ...] (x, y), both in pixels of these maps.
    """

    def __init__(self, backbone: Backbone, decoder: Decoder, hidden: nn.Module, outputs: Outputs):
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.hidden = hidden
        self.outputs = outputs
        self.multiple = max(backbone.strides)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.outputs(self.hidden(self.decoder(self.backbone(x))))

    def extra_repr(self) -> str:
        return f"source: {_SOURCE}; {_STATUS}"


class Decoder(nn.Module):
    """From a backbone's maps to one of stride 4, enlarging step by step.

    Args:
        backbone: whose maps are read.
        channels: of the result; each coarser step has twice as many as the next.
        block: ``block(in_channels, out_channels)``.
    """

    def __init__(
        self,
        backbone: Backbone,
        channels: int,
        block: Callable[[int, int], nn.Module],
        upsample: str,
    ):
        super().__init__()
        self.used = sum(stride >= STRIDE for stride in backbone.strides)
        inputs = backbone.channels[-self.used :]
        shuffle = check_upsample(upsample) == "shuffle"
        self.up = nn.PixelShuffle(2) if shuffle else nn.Upsample(scale_factor=2, mode="nearest")
        self.blocks = nn.ModuleList()
        current = inputs[-1]
        for step, lateral in reversed(list(enumerate(inputs[:-1]))):
            enlarged = current // 4 if shuffle else current
            self.blocks.append(block(enlarged + lateral, channels << step))
            current = channels << step
        self.channels = current

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        coarse, *finer = reversed(maps[-self.used :])
        for lateral, block in zip(finer, self.blocks, strict=True):
            coarse = block(torch.cat([self.up(coarse), lateral], 1))
        return coarse


def check_upsample(name: str) -> str:
    """Return ``name``; raises ValueError, naming the nearest, if it is not a way of enlarging."""
    if name not in UPSAMPLES:
        hint = nearest_name(str(name), list(UPSAMPLES))
        raise ValueError(f"unknown upsample {name!r}{hint}; known: {', '.join(UPSAMPLES)}")
    return name


class Outputs(nn.Module):
    """The last layers: three 1x1 convolutions, made by ``conv(in_channels, out_channels)``."""

    def __init__(self, in_channels: int, num_classes: int, conv: Callable[[int, int], nn.Module]):
        super().__init__()
        self.heatmap = conv(in_channels, num_classes)
        self.size = conv(in_channels, 2)
        self.offset = conv(in_channels, 2)
        # Whatever the layers before say, a fresh heatmap is nearly even: the loss has a steep
        # gradient where it wrongly is sure.
        for layer in (self.heatmap, self.size, self.offset):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.heatmap.bias, -math.log(1 / PRIOR - 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.heatmap(x), self.size(x), self.offset(x)


@register_model(input_sizes=INPUT_SIZES, source=_SOURCE, status=_STATUS)
def centernet_bineal18(
    num_classes: int = 80,
    stem: str = "imagenet",
    width: float = 2.0,
    in_channels: int = 3,
    stem_kernel: int = 7,
    decoder_channels: int = 64,
    head_channels: int = 64,
    upsample: str = "shuffle",
    heads: str = "real",
    surrogate: str | Surrogate = "clipped_identity",
    over_parameterize: str | None = None,
    parametric_activations: bool = True,
) -> CenterNet:
    """CenterNet on ``bineal18``, with one bit between all layers up to the head.

    Input [N, in_channels, H, W], sides multiples of 32 with ``stem="imagenet"``. ``width``
    multiplies the backbone's channels and the decoder's: ``decoder_channels`` at stride 4, twice as
    many at 8, four times at 16; and the ``head_channels`` that the three outputs share.
    ``stem_kernel``: side of the first 8-bit convolution of ``stem="imagenet"``; one of 3x3 takes a
    fifth of the time of 7x7, but the weights of a classifier fit 7 only (``init``).

    ``upsample="shuffle"``: four channels become one of twice the sides; ``"nearest"``: every
    channel stays, and blocks read four times as many. ``heads="real"``: an 8-bit 3x3 convolution,
    read by the 8-bit outputs. ``heads="binary"``: a BiNeal block, read by them. The other arguments
    are those of ``bineal18``, and the decoder's too.

    Raises ValueError for an unknown stem, surrogate, granularity, head or way of enlarging, an even
    ``stem_kernel``, or numbers that are not positive.
    """
    if heads not in HEADS:
        hint = nearest_name(str(heads), list(HEADS))
        raise ValueError(f"unknown heads {heads!r}{hint}; known: {', '.join(HEADS)}")

    training = {
        "surrogate": surrogate,
        "over_parameterize": over_parameterize,
        "parametric_activations": parametric_activations,
    }

    def block(inputs: int, outputs: int) -> BinealBlock:
        return BinealBlock(inputs, outputs, 1, **training)

    channels, hidden = _channels(decoder_channels, head_channels, width)
    backbone = Backbone(
        "bineal18",
        stem=stem,
        width=width,
        in_channels=in_channels,
        stem_kernel=stem_kernel,
        **training,
    )
    decoder = Decoder(backbone, channels, block, upsample)
    head = _real_head(channels, hidden, QuantConv2d) if heads == "real" else block(channels, hidden)
    outputs = Outputs(hidden, num_classes, lambda i, o: QuantConv2d(i, o, 1))
    return CenterNet(backbone, decoder, head, outputs)


@register_model(
    input_sizes=INPUT_SIZES,
    source="CenterNet, arXiv 1904.07850",
    status="the plan of centernet_bineal18 in full precision; the decoder is this project's",
)
def centernet_resnet18(
    num_classes: int = 80,
    stem: str = "imagenet",
    width: float = 1.0,
    in_channels: int = 3,
    stem_kernel: int = 7,
    decoder_channels: int = 64,
    head_channels: int = 64,
    upsample: str = "shuffle",
) -> CenterNet:
    """CenterNet on ResNet-18 in full precision: the rival of ``centernet_bineal18``, of its plan.

    Inputs, outputs and arguments are those of the binary network; blocks are ResNet's with ReLU.
    Raises ValueError for an unknown stem or way of enlarging, an even ``stem_kernel``, or numbers
    that are not positive.
    """
    channels, hidden = _channels(decoder_channels, head_channels, width)
    backbone = Backbone(
        "resnet18", stem=stem, width=width, in_channels=in_channels, stem_kernel=stem_kernel
    )
    decoder = Decoder(backbone, channels, lambda i, o: BasicBlock(i, o, 1), upsample)
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    head = _real_head(channels, hidden, nn.Conv2d)
    outputs = Outputs(hidden, num_classes, lambda i, o: nn.Conv2d(i, o, 1))
    return CenterNet(backbone, decoder, head, outputs)


def _channels(decoder: int, head: int, width: float) -> tuple[int, int]:
    for name, count in (("decoder_channels", decoder), ("head_channels", head)):
        if not (isinstance(count, int) and count > 0):
            raise ValueError(f"{name} must be a positive whole number, got {count!r}")
    return scaled_channels((decoder, head), width)


def _real_head(channels: int, hidden: int, conv: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        conv(channels, hidden, 3, padding=1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU()
    )
