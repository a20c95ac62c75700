"""EDSR: images made larger by convolutions at the small size and one pixel shuffle.

Both networks add what they compute to the image enlarged by repeating pixels, with a linear
convolution of the image that starts as bicubic enlargement::

    image -> first convolution -> body -> last convolution -+
    image -> convolution 5x5 -------------------------------+-> pixel shuffle -> large image
    image -> each pixel repeated ---------------------------+

:func:`edsr` is EDSR (arXiv 1707.02921), fewer blocks and channels, with the last convolution before
the pixel shuffle, where it has a quarter of the pixels to compute.

:func:`edsr_bineal` has 8-bit first and last convolutions and BiNeal's blocks in between. What bits
alone pass is too little: they say where an edge is and which way it runs, but not how strong it is,
and the detail to be added is proportional to that. So 8-bit features of the first layer are carried
to the last one, where a binary convolution of the body's bits is added to them::

    image -> 8-bit 3x3 -> BN -> sign -> BiNeal blocks -> bits -> binary 3x3 -> BN -+
    image -> 8-bit 5x5 -> features ------------------------------------------------+-> sum
    sum -> PReLU -> 8-bit 3x3 -> detail

All that binary layers read and pass on to each other are bits (and BiNeal's 4-bit sums).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from signbit.models.bineal import BinealBlock, Carry
from signbit.models.registry import register_model
from signbit.models.stages import scaled_channels
from signbit.nn import QuantConv2d, Sign
from signbit.quantizers import Surrogate

CHANNELS = 64  # of the body at width 1
INPUT_SIZES = {"cifar": (3, 64, 64)}

_SOURCE = "EDSR, arXiv 1707.02921; BiNeal networks, arXiv 2202.03716"
_STATUS = "reconstruction [RECON]: how features pass the body is this project's, not the authors'"


class Enlarge(nn.Module):
    """The end of both networks: an image and the detail to be added to it -> a large image.

    Inputs [N, C, H, W] and [N, C * scale^2, H, W]; output [N, C, scale * H, scale * W].
    ``linear`` is a convolution C -> C * scale^2 of the image, set to what turns repeated pixels
    into bicubic enlargement.
    """

    def __init__(self, scale: int, linear: nn.Module):
        super().__init__()
        self.scale = scale
        self.linear = linear
        self.shuffle = nn.PixelShuffle(scale)
        start_bicubic(linear, scale)

    def forward(self, image: Tensor, detail: Tensor) -> Tensor:
        repeated = image.repeat_interleave(self.scale**2, 1)
        return self.shuffle(detail + self.linear(image) + repeated)


@torch.no_grad()
def start_bicubic(conv: nn.Module, scale: int) -> None:
    """Set a convolution [C * scale^2, C, K, K], K >= 5, to bicubic less repeated pixels.

    Keys' kernel, a = -1/2, as Pillow and MATLAB have it; at the edges zeros are padded.
    """
    assert isinstance(conv, nn.Conv2d | QuantConv2d)
    reach = conv.kernel_size[0] // 2
    conv.weight.zero_()
    if conv.bias is not None:
        conv.bias.zero_()
    taps = [[_cubic((i + 0.5) / scale - 0.5 - d) for d in range(-reach, reach + 1)]
            for i in range(scale)]  # fmt: skip
    for channel in range(conv.in_channels):
        for i in range(scale):
            for j in range(scale):
                kernel = conv.weight[channel * scale**2 + i * scale + j, channel]
                kernel.copy_(torch.outer(torch.tensor(taps[i]), torch.tensor(taps[j])))
                kernel[reach, reach] -= 1


def _cubic(distance: float, a: float = -0.5) -> float:
    t = abs(distance)
    if t < 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


class EDSRBineal(nn.Module):
    """The binary network, as drawn above: [N, C, H, W] -> [N, C, scale * H, scale * W]."""

    def __init__(
        self,
        scale: int,
        channels: int,
        blocks: int,
        features: int,
        in_channels: int,
        surrogate: str | Surrogate,
        over_parameterize: str | None,
        parametric_activations: bool,
    ):
        super().__init__()
        outputs = in_channels * scale**2
        self.stem = nn.Sequential(
            QuantConv2d(in_channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            Sign(surrogate),
        )
        self.body = nn.Sequential(
            *(
                BinealBlock(
                    channels, channels, 1, surrogate, over_parameterize, parametric_activations
                )
                for _ in range(blocks)
            )
        )
        self.carry = None
        if features:
            image = QuantConv2d(in_channels, features, 5, padding=2)
            self.carry = Carry(image, channels, features, over_parameterize)
        self.tail = QuantConv2d(features or channels, outputs, 3, padding=1)
        nn.init.normal_(self.tail.weight, std=0.01)
        self.enlarge = Enlarge(scale, QuantConv2d(in_channels, outputs, 5, padding=2))

    def forward(self, x: Tensor) -> Tensor:
        bits = self.body(self.stem(x))
        if self.carry is not None:
            return self.enlarge(x, self.tail(self.carry(x, bits)))
        # Hundreds of +-1 are summed: a step of the usual size would change images too much.
        return self.enlarge(x, 0.1 * self.tail(bits))

    def extra_repr(self) -> str:
        return f"source: {_SOURCE}; {_STATUS}"


class EDSR(nn.Module):
    """The full-precision network, as drawn above: [N, C, H, W] -> [N, C, scale * H, scale * W]."""

    def __init__(self, scale: int, channels: int, blocks: int, in_channels: int):
        super().__init__()
        outputs = in_channels * scale**2
        self.head = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.end = nn.Conv2d(channels, channels, 3, padding=1)
        self.tail = nn.Conv2d(channels, outputs, 3, padding=1)
        nn.init.normal_(self.tail.weight, std=0.01)
        nn.init.zeros_(self.tail.bias)
        self.enlarge = Enlarge(scale, nn.Conv2d(in_channels, outputs, 5, padding=2))

    def forward(self, x: Tensor) -> Tensor:
        head = self.head(x)
        return self.enlarge(x, self.tail(head + self.end(self.body(head))))


class ResidualBlock(nn.Module):
    """EDSR's block, without batch norm: x + conv(relu(conv(x))), [N, C, H, W] throughout."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.act(self.conv1(x)))


@register_model(input_sizes=INPUT_SIZES, source=_SOURCE, status=_STATUS)
def edsr_bineal(
    scale: int = 2,
    width: float = 1.0,
    blocks: int = 2,
    features: int = 48,
    in_channels: int = 3,
    surrogate: str | Surrogate = "clipped_identity",
    over_parameterize: str | None = None,
    parametric_activations: bool = True,
) -> EDSRBineal:
    """EDSR of BiNeal blocks: normalised images [N, C, H, W] -> [N, C, scale * H, scale * W].

    Any size; C is ``in_channels``. ``width`` multiplies the body's 64 channels, to multiples of 4;
    ``blocks`` counts its BiNeal blocks; ``features`` the 8-bit channels that are carried to the
    last layer, 0 for bits alone. ``over_parameterize`` and ``parametric_activations`` are those of
    :func:`bineal18`.

    Raises ValueError for a scale other than 2, 3, 4 and other arguments that make no network.

    [RECON] A reconstruction from arXiv 2202.03716, which enlarges with a small EDSR of BiNeal
    blocks and 8-bit first and last convolutions, and says no more of it.
    """
    _check(scale, blocks)
    if type(features) is not int or features < 0 or features % 4:
        raise ValueError(f"features must be a multiple of 4, or 0 for none, got {features!r}")
    (channels,) = scaled_channels((CHANNELS,), width)
    return EDSRBineal(
        scale,
        channels,
        blocks,
        features,
        in_channels,
        surrogate,
        over_parameterize,
        parametric_activations,
    )


@register_model(
    input_sizes=INPUT_SIZES,
    source="EDSR, arXiv 1707.02921",
    status="the authors' blocks, fewer of them; the last convolution stands before the shuffle",
)
def edsr(
    scale: int = 2,
    width: float = 0.5,
    blocks: int = 4,
    in_channels: int = 3,
) -> EDSR:
    """A small EDSR in full precision, the comparison network; nothing binary, not for compiling.

    Normalised images [N, C, H, W] -> [N, C, scale * H, scale * W], any size. ``width`` multiplies
    64 channels, to multiples of 4; ``blocks`` counts residual blocks. Raises ValueError for a scale
    other than 2, 3, 4, fewer than 1 block or a width that is not positive.
    """
    _check(scale, blocks)
    (channels,) = scaled_channels((CHANNELS,), width)
    return EDSR(scale, channels, blocks, in_channels)


def _check(scale: int, blocks: int) -> None:
    if scale not in (2, 3, 4):
        raise ValueError(f"scale must be 2, 3 or 4, got {scale}")
    if type(blocks) is not int or blocks < 1:
        raise ValueError(f"blocks must be a whole number of at least 1, got {blocks!r}")
