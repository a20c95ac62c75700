"""Fully convolutional networks for segmentation, with skip heads (FCN, arXiv 1411.4038).

A backbone gives maps of strides 4 to 32. From the coarsest on, a map is enlarged, joined with the
backbone's next finer one, and refined by one block. A 1x1 convolution reads scores from each of
these maps; coarser scores are enlarged and added to finer ones. What comes out are the scores at
the finest stride: whoever decodes enlarges them to the image
(:func:`signbit.runtime.segmentation.mask_of_scores`), which is cheaper than doing it in the network
and needs no second enlargement where the image had been scaled.

[RECON] BiNeal networks (arXiv 2202.03716) segment with FCN on ResNet-18; how theirs joins maps is
not public. Here blocks are :class:`~signbit.models.bineal.BinealBlock`, and bits are enlarged,
joined and read as bits: no map between stem and scores is real-valued.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from signbit.models.backbone import Backbone
from signbit.models.bineal import BinealBlock
from signbit.models.registry import register_model
from signbit.models.resnet import BasicBlock
from signbit.models.stages import scaled_channels
from signbit.nn import QuantConv2d
from signbit.quantizers import Surrogate

INPUT_SIZES = {"imagenet": (3, 512, 1024), "cifar": (3, 96, 128)}

_SOURCE = "FCN, arXiv 1411.4038; BiNeal networks, arXiv 2202.03716"
_STATUS = "reconstruction [RECON]: how maps are joined is this project's, not the authors'"


class FCN(nn.Module):
    """Backbone, refining blocks and heads as described above.

    Input [N, in_channels, H, W] of any size; output scores [N, num_classes, H / s, W / s], rounded
    up, s being the stride of the finest map that is joined.

    Args:
        backbone: whose maps are read.
        decoder_channels: of the blocks that refine, the coarsest first; at most one less than the
            backbone has maps.
        num_classes: scores a pixel.
        block: ``block(in_channels, out_channels)``.
        head: ``head(in_channels, out_channels)``, a 1x1 convolution.

    Raises:
        ValueError: more blocks than maps that they could join.
    """

    def __init__(
        self,
        backbone: Backbone,
        decoder_channels: Sequence[int],
        num_classes: int,
        block: Callable[[int, int], nn.Module],
        head: Callable[[int, int], nn.Module],
    ):
        super().__init__()
        *finer, coarsest = backbone.channels
        if len(decoder_channels) > len(finer):
            raise ValueError(
                f"decoder_channels has {len(decoder_channels)} numbers, but there are {len(finer)} "
                "maps finer than the coarsest one"
            )
        self.backbone = backbone
        self.blocks, self.heads = nn.ModuleList(), nn.ModuleList([head(coarsest, num_classes)])
        current = coarsest
        for lateral, channels in zip(reversed(finer), decoder_channels, strict=False):
            self.blocks.append(block(current + lateral, channels))
            self.heads.append(head(channels, num_classes))
            current = channels

    def forward(self, x: Tensor) -> Tensor:
        coarse, *finer = reversed(self.backbone(x))
        first, *heads = self.heads
        scores = first(coarse)
        for lateral, block, head in zip(finer, self.blocks, heads, strict=False):
            size = lateral.shape[2:]
            enlarged = functional.interpolate(coarse, size=size, mode="nearest")
            coarse = block(torch.cat([enlarged, lateral], 1))
            scores = functional.interpolate(scores, size=size, mode="bilinear") + head(coarse)
        return scores

    def extra_repr(self) -> str:
        return f"source: {_SOURCE}; {_STATUS}"


class BitsHead(nn.Module):
    """Scores of bits: an 8-bit 1x1 convolution, divided by the square root of its input channels.

    Input [N, I, H, W] of +-1, output [N, O, H, W]. A step of Adam moves all weights alike, and so a
    sum over many bits by many times as much as one over few; undivided, the coarse maps' scores
    outrun the fine ones'.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = QuantConv2d(in_channels, out_channels, 1)
        self.scale = in_channels**-0.5

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.scale

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}"


@register_model(input_sizes=INPUT_SIZES, source=_SOURCE, status=_STATUS)
def fcn_bineal18(
    num_classes: int = 19,
    stem: str = "imagenet",
    width: float = 2.0,
    in_channels: int = 3,
    stem_kernel: int = 7,
    decoder_channels: Sequence[int] = (128, 96, 64),
    surrogate: str | Surrogate = "clipped_identity",
    over_parameterize: str | None = None,
    parametric_activations: bool = True,
) -> FCN:
    """FCN on ``bineal18``, with one bit between all layers up to the scores.

    Input [N, in_channels, H, W]. ``width`` multiplies the backbone's channels and
    ``decoder_channels``: those of the blocks at strides 16, 8 and 4; fewer numbers end at a coarser
    stride, none gives FCN-32s. ``stem_kernel``: side of the first 8-bit convolution of
    ``stem="imagenet"``; one of 3x3 takes a fifth of the time of 7x7, which is half of a whole
    network's, but the weights of a classifier fit 7 only (``init``). Other arguments are those of
    ``bineal18``, and the blocks' too. Raises ValueError for an unknown stem, surrogate or
    granularity, an even ``stem_kernel``, numbers that are not positive, or too many of them.
    """
    training = {
        "surrogate": surrogate,
        "over_parameterize": over_parameterize,
        "parametric_activations": parametric_activations,
    }
    backbone = Backbone(
        "bineal18",
        stem=stem,
        width=width,
        in_channels=in_channels,
        stem_kernel=stem_kernel,
        **training,
    )
    return FCN(
        backbone,
        _channels(decoder_channels, width),
        num_classes,
        lambda i, o: BinealBlock(i, o, 1, **training),
        BitsHead,
    )


@register_model(
    input_sizes=INPUT_SIZES,
    source="FCN, arXiv 1411.4038",
    status="the plan of fcn_bineal18 in full precision; how maps are joined is this project's",
)
def fcn_resnet18(
    num_classes: int = 19,
    stem: str = "imagenet",
    width: float = 1.0,
    in_channels: int = 3,
    stem_kernel: int = 7,
    decoder_channels: Sequence[int] = (128, 96, 64),
) -> FCN:
    """FCN on ResNet-18 in full precision: the rival of ``fcn_bineal18``, of its plan.

    Input, output and arguments are those of the binary network; blocks are ResNet's with ReLU.
    Raises ValueError for an unknown stem, an even ``stem_kernel``, or numbers that are not positive
    or too many.
    """
    backbone = Backbone(
        "resnet18", stem=stem, width=width, in_channels=in_channels, stem_kernel=stem_kernel
    )
    model = FCN(
        backbone,
        _channels(decoder_channels, width),
        num_classes,
        lambda i, o: BasicBlock(i, o, 1),
        lambda i, o: nn.Conv2d(i, o, 1),
    )
    for module in model.blocks.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def _channels(counts: Sequence[int], width: float) -> tuple[int, ...]:
    if not all(type(count) is int and count > 0 for count in counts):
        raise ValueError(
            f"decoder_channels must be positive whole numbers, got {', '.join(map(str, counts))}"
        )
    return scaled_channels(tuple(counts), width)
