"""Networks that find and describe key points: a narrow R2D2 in bits, and its real-valued rival.

After R2D2 (arXiv 1906.06195), adapted as BiNeal networks are (arXiv 2202.03716): each two
consecutive convolutions are one block of bits without a skip, and the output layers stay as they
are. [RECON] Widths and strides are this project's own. R2D2 computes every layer at every pixel; to
suit a CPU, here the first convolutions have strides, and repeatability gets its pixels back by a
pixel shuffle, as in SuperPoint (arXiv 1712.07629)::

    image -> 3x3/2 -> block/2 -> block -> block, dilated -+-> 1x1 -> descriptors     [D, H/4, W/4]
               |                                          |-> 1x1 -> reliability     [1, H/4, W/4]
               |                                          |-> 1x1 -> pixel shuffle
               |                                          |          -> repeatability   [1, H, W]
               +-> PReLU -> 8-bit 3x3/2 -> features ------+

[RECON] The features, which are an option, are of the binary network alone: bits that six layers
have passed on tell much less of a place than the numbers that the first layer found there. A binary
convolution of the last block's bits is added to them, and the output layers read the sum.

With ``stride=8`` the last block has a stride instead of the dilation and more channels; descriptors
and reliability are half as fine, and repeatability reads the block before. A pixel of the coarse
maps at (x, y) sees the image around (stride x, stride y). Reliability and repeatability are logits.
Images whose sides are not multiples of the stride give maps that are larger, by less than that, at
the right and bottom.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from signbit.models.bineal import BinealBlock, Carry, bineal_conv
from signbit.models.registry import register_model
from signbit.models.stages import scaled_channels
from signbit.nn import BinaryConv2d, QuantConv2d, RPReLU, Sign
from signbit.quantizers import Surrogate

# Of the coarse maps -> channels of stem and blocks, strides and dilations of the blocks.
_PLANS = {
    4: ((16, 32, 64, 64), (2, 1, 1), (1, 1, 2)),
    8: ((16, 32, 64, 96), (2, 1, 2), (1, 1, 1)),
}
_FINE = 4  # pixels of the image a pixel of the map that repeatability reads
_SOURCE = "R2D2, arXiv 1906.06195"
_SIZES = {"default": (3, 480, 640)}


class BinaryPair(nn.Module):
    """Two binary convolutions, a BiNeal block without skip: bits [N, I, H, W] -> [N, O, H', W'].

    ``conv3x3(stride) -> BN -> RPReLU -> sign -> conv3x3(dilation) -> BN -> RPReLU -> sign``; the
    other arguments are those of :class:`~signbit.models.bineal.BinealBlock`. The latent weights of
    a filter start out alike over its taps (:func:`start_smooth`).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        dilation: int,
        surrogate: str | Surrogate = "clipped_identity",
        over_parameterize: str | None = None,
        parametric_activations: bool = True,
    ):
        super().__init__()

        def activation() -> nn.Module:
            return RPReLU(out_channels) if parametric_activations else nn.Identity()

        self.conv1 = bineal_conv(in_channels, out_channels, 3, stride, over_parameterize)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.act1 = activation()
        self.sign1 = Sign(surrogate)
        self.conv2 = bineal_conv(out_channels, out_channels, 3, 1, over_parameterize, dilation)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act2 = activation()
        self.sign2 = Sign(surrogate)
        start_smooth(self.conv1)
        start_smooth(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.sign1(self.act1(self.bn1(self.conv1(x))))
        return self.sign2(self.act2(self.bn2(self.conv2(x))))


@torch.no_grad()
def start_smooth(conv: BinaryConv2d, share: float = 0.7) -> None:
    """Draw a filter's latent weights to that of its centre, by a share of the way.

    Signs of random sums flip at the least change of an image, layer by layer more of them: behind
    six layers with random weights, a place in two views of a scene has nothing in common with
    itself (a correlation of 0.07), and there is nothing to learn from. Filters that average over
    their taps keep it (0.5).
    """
    height, width = conv.kernel_size
    centre = conv.weight[:, :, height // 2, width // 2, None, None]
    conv.weight.lerp_(centre.expand_as(conv.weight).clone(), share)


class RealPair(nn.Module):
    """The same two convolutions in real numbers, each with batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dilation: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        return self.act2(self.bn2(self.conv2(x)))


class R2D2(nn.Module):
    """Stem, blocks and output layers, as drawn above.

    Input [N, in_channels, H, W]; output (descriptors [N, D, h, w], reliability [N, 1, h, w],
    repeatability [N, 1, H', W']) with h = ceil(H / stride) and H' = 4 ceil(H / 4).

    Args:
        stem: the first convolution, with batch norm.
        activation: what follows, before the blocks.
        width: multiplies the plan's channels.
        stride: 4 or 8, pixels of the image a pixel of the coarse maps.
        block: makes one from its channels in and out, stride and dilation.
        head: makes a 1x1 convolution from its channels in and out.
        descriptor_size: D.
        carry: makes what joins the stem's output to the last block's, from the channels of both.

    Raises ValueError for a number out of range.
    """

    def __init__(
        self,
        stem: Callable[[int], nn.Sequential],
        activation: nn.Module,
        width: float,
        stride: int,
        block: Callable[[int, int, int, int], nn.Module],
        head: Callable[[int, int], nn.Module],
        descriptor_size: int,
        carry: Callable[[int, int], Carry] | None = None,
    ):
        super().__init__()
        if stride not in _PLANS:
            raise ValueError(f"stride must be 4 or 8, got {stride}")
        if descriptor_size < 8 or descriptor_size % 8:
            raise ValueError(f"descriptor_size must be a multiple of 8, got {descriptor_size}")
        plan, strides, dilations = _PLANS[stride]
        channels = scaled_channels(plan, width)
        self.stem = stem(channels[0])
        self.act = activation
        self.blocks = nn.Sequential(*map(block, channels, channels[1:], strides, dilations))
        self.fine = len(self.blocks) - (stride > _FINE)  # blocks up to repeatability
        self.carry = carry(channels[0], channels[-1]) if carry else None
        last = self.carry.channels if self.carry else channels[-1]
        self.descriptors = head(last, descriptor_size)
        self.reliability = head(last, 1)
        self.repeatability = head(last if stride == _FINE else channels[self.fine], _FINE**2)
        self.shuffle = nn.PixelShuffle(_FINE)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.stem(x)
        maps = [self.act(found)]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        if self.carry is not None:
            maps[-1] = self.carry(found, maps[-1])
        coarse, fine = maps[-1], maps[self.fine]
        repeatability = self.shuffle(self.repeatability(fine))
        return self.descriptors(coarse), self.reliability(coarse), repeatability

    def extra_repr(self) -> str:
        return f"source: {_SOURCE}"


@register_model(
    input_sizes=_SIZES,
    source=_SOURCE,
    status="reconstruction [RECON]: blocks as in BiNeal networks, widths and strides are ours",
)
def r2d2_bineal(
    width: float = 2.0,
    in_channels: int = 3,
    stride: int = 4,
    skip: bool = False,
    descriptor_size: int = 64,
    surrogate: str | Surrogate = "clipped_identity",
    over_parameterize: str | None = None,
    parametric_activations: bool = True,
    features: int = 0,
) -> R2D2:
    """R2D2 (arXiv 1906.06195) in bits: 8-bit stem and output layers, binary blocks between.

    Input [N, in_channels, H, W]; outputs as in :class:`R2D2`. ``width`` multiplies the channels
    (16, 32, 64, 64; 96 at the end with ``stride=8``), to multiples of 4. ``skip`` takes whole
    BiNeal blocks, with their skip path, which learn sooner (and have no dilation: ``stride=8``).
    ``features`` is the number of 8-bit features beside the blocks, 0 for bits alone: the recipes
    have 48.
    ``descriptor_size`` is D, a multiple of 8. ``over_parameterize`` and ``parametric_activations``
    are those of :func:`~signbit.models.bineal18`. Raises ValueError for an unknown surrogate or
    granularity, or a number out of range.
    """
    if features < 0:
        raise ValueError(f"features must be at least 0, got {features}")
    if skip and stride != 8:
        raise ValueError(f"skip needs stride=8, whose blocks have no dilation, got {stride}")
    options = (surrogate, over_parameterize, parametric_activations)

    def block(inputs: int, outputs: int, stride: int, dilation: int) -> nn.Module:
        if not skip:
            return BinaryPair(inputs, outputs, stride, dilation, *options)
        made = BinealBlock(inputs, outputs, stride, *options)
        start_smooth(made.conv1)
        start_smooth(made.conv2)
        return made

    def stem(channels: int) -> nn.Sequential:
        conv = QuantConv2d(in_channels, channels, 3, stride=2, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(channels))

    def carry(stem: int, bits: int) -> Carry:
        step = stride // 2
        conv = QuantConv2d(stem, features, step + 1, step, padding=step // 2)
        return Carry(nn.Sequential(nn.PReLU(stem), conv), bits, features, over_parameterize)

    return R2D2(
        stem,
        Sign(surrogate),
        width,
        stride,
        block,
        lambda i, o: QuantConv2d(i, o, 1),
        descriptor_size,
        carry if features else None,
    )


@register_model(
    input_sizes=_SIZES,
    source=_SOURCE,
    status="the method, narrower; widths and strides are this project's own",
)
def r2d2(
    width: float = 1.0, in_channels: int = 3, stride: int = 4, descriptor_size: int = 64
) -> R2D2:
    """R2D2 (arXiv 1906.06195) on the plan of :func:`r2d2_bineal` in real numbers: its rival.

    Arguments, outputs and errors are those of :func:`r2d2_bineal`.
    """

    def stem(channels: int) -> nn.Sequential:
        conv = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(channels))

    return R2D2(
        stem, nn.ReLU(), width, stride, RealPair, lambda i, o: nn.Conv2d(i, o, 1), descriptor_size
    )
