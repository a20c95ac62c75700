"""What the 18-layer networks share: widths, stems' names, input sizes."""

import math

from signbit.quantizers import nearest_name

STAGE_WIDTHS = (64, 128, 256, 512)
STEMS = ("imagenet", "cifar")
INPUT_SIZES = {"imagenet": (3, 224, 224), "cifar": (3, 32, 32)}


def stage_channels(width: float) -> tuple[int, ...]:
    """Return the channels of the four stages: 64, 128, 256, 512 times ``width``, to the nearest multiple of 4.

    The stem has the channels of the first stage. Raises ValueError for a width that is not positive.
    """
    if not (math.isfinite(width) and width > 0):
        raise ValueError(f"width must be a positive number, got {width}")
    return tuple(max(4, 4 * round(channels * width / 4)) for channels in STAGE_WIDTHS)


def check_stem(stem: str) -> str:
    """Return ``stem``; raises ValueError, naming the nearest, if it is not one of :data:`STEMS`."""
    if stem not in STEMS:
        hint = nearest_name(str(stem), list(STEMS))
        raise ValueError(f"unknown stem {stem!r}{hint}; known: {', '.join(STEMS)}")
    return stem
