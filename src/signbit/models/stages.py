"""What the 18-layer networks share: widths, stems' names, input sizes, strides."""

import math
from collections.abc import Callable

from torch import nn

from signbit.quantizers import nearest_name

STAGE_WIDTHS = (64, 128, 256, 512)
STEMS = ("imagenet", "cifar")
INPUT_SIZES = {"imagenet": (3, 224, 224), "cifar": (3, 32, 32)}


def scaled_channels(channels: tuple[int, ...], width: float) -> tuple[int, ...]:
    """Return ``channels`` times ``width``, to the nearest multiple of 4 and at least 4.

    Raises ValueError for a width that is not positive.
    """
    if not (math.isfinite(width) and width > 0):
        raise ValueError(f"width must be a positive number, got {width}")
    return tuple(max(4, 4 * round(count * width / 4)) for count in channels)


def stage_channels(width: float) -> tuple[int, ...]:
    """Return the channels of the four stages: 64, 128, 256, 512, :func:`scaled_channels`.

    The stem has the channels of the first stage. Raises ValueError for a width that is not
    positive.
    """
    return scaled_channels(STAGE_WIDTHS, width)


def check_stem(stem: str) -> str:
    """Return ``stem``; raises ValueError, naming the nearest, if it is not one of :data:`STEMS`."""
    if stem not in STEMS:
        hint = nearest_name(str(stem), list(STEMS))
        raise ValueError(f"unknown stem {stem!r}{hint}; known: {', '.join(STEMS)}")
    return stem


def check_stem_kernel(kernel: int, stem: str) -> int:
    """Return ``kernel``, the side of the first convolution of ``stem="imagenet"``.

    Raises ValueError for an even number, or for another stem than that with another side than 7.
    """
    if type(kernel) is not int or kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"stem_kernel must be an odd number of pixels, got {kernel!r}")
    if kernel != 7 and stem != "imagenet":
        raise ValueError(f'stem_kernel is of stem="imagenet", not of {stem!r}; leave it out')
    return kernel


def build_stages(
    counts: tuple[int, ...],
    widths: tuple[int, ...],
    make: Callable[[int, int, int], nn.Module],
) -> nn.Sequential:
    """Return stages of ``counts`` blocks, each ``make(in_channels, out_channels, stride)``.

    The input has the first stage's channels; every later stage halves the map in its first block.
    """
    channels = widths[0]
    stages = []
    for index, (count, out_channels) in enumerate(zip(counts, widths, strict=True)):
        first = make(channels, out_channels, 1 if index == 0 else 2)
        rest = [make(out_channels, out_channels, 1) for _ in range(count - 1)]
        stages.append(nn.Sequential(first, *rest))
        channels = out_channels
    return nn.Sequential(*stages)
