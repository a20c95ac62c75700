"""BNext: binary networks that are built to be easy to optimise.

Each binary convolution stands in a unit whose output is recoupled with its input (Info-RCP), and
every other 3x3 unit multiplies it with the bypass (ELM attention)::

    v   = PReLU(BN(conv(sign(x + m))))              binary 3x3(stride) or 1x1
    x'  = x, or its 2x2 averages with stride 2
    mix = s * x' + (1 - s) * v                      s a channel, learned, within [0, 1]
    q   = sigmoid(W2 relu(W1 mean(mix))) * v        squeeze-and-excite, W1 to an eighth
    out = BN(q) + x'                                FFN unit
    out = BN(q * r) + r,  r = PReLU(x) (averaged)   ELM-attention unit

A block is a 3x3 unit, then one 1x1 unit or, where the width doubles, two of them side by side.
There is no real-valued convolution but the stem and those of squeeze-and-excite.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from signbit.models.registry import register_model
from signbit.models.stages import (
    INPUT_SIZES,
    build_stages,
    check_stem,
    scaled_channels,
    stage_channels,
)
from signbit.nn import (
    BinaryConv2d,
    DynamicQuantConv2d,
    DynamicQuantLinear,
    QuantConv2d,
    QuantLinear,
    RSign,
)
from signbit.quantizers import ClippedIdentity, ProgressiveSign, Surrogate, nearest_name

_SOURCE = "BNext, arXiv 2211.12933"
_STATUS = "the authors' network; static 8- and 4-bit ranges are ours [RECON]"
_STATUS_18 = f"{_STATUS}, and so are its ablations"

BITS = (32, 8, 4)
RANGES = ("static", "dynamic")
REDUCTION = 8  # of squeeze-and-excite
_WINDOW = 1.5  # of latent weights, and of the sign's gradient
_LATENT_STD = 1e-3
# How many blocks end in 2, 4, 8, 16 and 32 times the stem's channels.
_PLAN_TINY = (1, 2, 2, 6, 2)
_PLAN_MIDDLE = (1, 4, 4, 8, 4)
_PLAN_LARGE = (1, 4, 4, 16, 4)


@dataclass(frozen=True)
class Parts:
    """What a network is built from.

    Raises ValueError for bits that are not 32, 8 or 4, for unknown ranges, and for dynamic ranges
    where nothing has any.
    """

    elm_attention: bool
    info_rcp: bool
    stem_bits: int
    se_bits: int
    head_bits: int
    ranges: str
    given_surrogate: str | Surrogate | None

    def __post_init__(self):
        for name in ("stem_bits", "se_bits", "head_bits"):
            bits = getattr(self, name)
            if bits not in BITS:
                known = ", ".join(map(str, BITS))
                raise ValueError(f"{name} must be one of {known}, got {bits!r}")
        if self.ranges not in RANGES:
            hint = nearest_name(str(self.ranges), list(RANGES))
            raise ValueError(f"unknown ranges {self.ranges!r}{hint}; known: {', '.join(RANGES)}")
        if not self.info_rcp and self.se_bits == 4:
            raise ValueError("se_bits=4: without info_rcp there is no squeeze-and-excite")
        bits = {self.stem_bits, self.head_bits, self.se_bits if self.info_rcp else 32}
        if self.dynamic and bits == {32}:
            raise ValueError("ranges='dynamic': all bits are 32, so that there are no ranges")

    @property
    def dynamic(self) -> bool:
        """Whether quantised layers find their ranges in each pass, as the authors' do."""
        return self.ranges == "dynamic"

    @property
    def surrogate(self) -> str | Surrogate:
        """The surrogate that was asked for, or else the authors'."""
        return ClippedIdentity(_WINDOW) if self.given_surrogate is None else self.given_surrogate

    def conv(
        self, bits: int, inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = False
    ) -> nn.Module:
        """A convolution that is not binary."""
        shape = (inputs, outputs, kernel, stride, kernel // 2)
        if bits == 32:
            return nn.Conv2d(*shape, bias=bias)
        if self.dynamic:
            return DynamicQuantConv2d(*shape, bias=bias, bits=bits)
        return QuantConv2d(*shape, bias=bias, bits=bits)

    def stem(self, inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
        """The first convolution, whose images have 8 bits already."""
        conv = self.conv(self.stem_bits, inputs, outputs, kernel, stride)
        if isinstance(conv, DynamicQuantConv2d):
            conv.quantize_input = False
        return conv

    def linear(self, inputs: int, outputs: int) -> nn.Module:
        """The classifier."""
        if self.head_bits == 32:
            return nn.Linear(inputs, outputs)
        kind = DynamicQuantLinear if self.dynamic else QuantLinear
        return kind(inputs, outputs, bits=self.head_bits)

    def binary_conv(self, inputs: int, outputs: int, kernel: int, stride: int) -> BinaryConv2d:
        """A binary convolution without a scale, which the batch norm behind it makes up for."""
        conv = BinaryConv2d(
            inputs,
            outputs,
            kernel,
            stride,
            kernel // 2,
            weight_quantizer=ProgressiveSign(),
            latent_clamp=_WINDOW,
        )
        nn.init.normal_(conv.weight, std=_LATENT_STD)
        return conv

    def squeeze_excite(self, channels: int) -> nn.Sequential:
        """A factor in (0, 1) for each channel: [N, C, H, W] -> [N, C, 1, 1]."""
        hidden = max(1, channels // REDUCTION)
        return nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            self.conv(self.se_bits, channels, hidden, 1, bias=True),
            nn.ReLU(),
            self.conv(self.se_bits, hidden, channels, 1, bias=True),
            nn.Sigmoid(),
        )


class BNextUnit(nn.Module):
    """A unit, as drawn above: [N, I, H, W] -> [N, O, H / stride, W / stride].

    ``shortcut`` makes x' of x. With ``attention`` it is an ELM-attention unit, and ``bypass`` makes
    r of x; None: r is x'. Without recoupling, FFN units leave out the second batch norm too.
    """

    def __init__(
        self,
        parts: Parts,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        shortcut: nn.Module,
        attention: bool = False,
        bypass: nn.Module | None = None,
    ):
        super().__init__()
        self.sign = RSign(inputs, parts.surrogate)
        self.conv = parts.binary_conv(inputs, outputs, kernel, stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.act = nn.PReLU(outputs)
        self.shortcut = shortcut
        self.attention = attention
        self.bypass = bypass
        self.info_rcp = parts.info_rcp
        if self.info_rcp:
            self.scale = nn.Parameter(torch.full((outputs,), 0.5))
            self.se = parts.squeeze_excite(outputs)
        self.norm2 = nn.BatchNorm2d(outputs) if self.info_rcp or attention else None

    def forward(self, x: Tensor) -> Tensor:
        v = self.act(self.norm1(self.conv(self.sign(x))))
        shortcut = self.shortcut(x)
        if self.info_rcp:
            if self.training:
                # Where clamping stops the gradient, nothing would bring a number back.
                self.scale.data.clamp_(0.0, 1.0)
            s = self.scale.clamp(0.0, 1.0).view(1, -1, 1, 1)
            v = self.se(s * shortcut + (1.0 - s) * v) * v
        if self.attention:
            if self.bypass is not None:
                shortcut = self.bypass(x)
            v = v * shortcut
        return (v if self.norm2 is None else self.norm2(v)) + shortcut


class BNextBlock(nn.Module):
    """A 3x3 unit and one or two 1x1 units: [N, I, H, W] -> [N, O, H / stride, W / stride].

    O is I or 2 I. With stride 2 height and width must be even.
    """

    def __init__(self, parts: Parts, inputs: int, outputs: int, stride: int, attention: bool):
        super().__init__()

        def halved() -> list[nn.Module]:
            return [] if stride == 1 else [nn.AvgPool2d(2, 2)]

        bypass = nn.Sequential(nn.PReLU(inputs), *halved()) if attention else None
        shortcut = nn.Sequential(*halved())
        self.spatial = BNextUnit(parts, inputs, inputs, 3, stride, shortcut, attention, bypass)
        self.pointwise = nn.ModuleList(
            BNextUnit(parts, inputs, inputs, 1, 1, nn.Identity()) for _ in range(outputs // inputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.spatial(x)
        if len(self.pointwise) == 1:
            return self.pointwise[0](h)
        return torch.cat([unit(h) for unit in self.pointwise], 1)


class _Classifier(nn.Module):
    """Stem, stages of blocks, and a classifier behind their PReLU."""

    def __init__(self, stem: nn.Module, stages: nn.Module, channels: int, head: nn.Module):
        super().__init__()
        self.stem = stem
        self.stages = stages
        self.act = nn.PReLU(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = head

    def features(self, x: Tensor) -> list[Tensor]:
        """The map that each stage ends with, finest first, for dense tasks."""
        x = self.stem(x)
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(self.pool(self.act(self.stages(self.stem(x))))))

    def extra_repr(self) -> str:
        return f"source: {_SOURCE}"


class BNext(_Classifier):
    """BNext on the plan of MobileNetV1.

    Input [N, in_channels, H, W]; output logits [N, num_classes]. ``plan`` is how many blocks end in
    2, 4, 8, 16 and 32 times ``base`` channels. :meth:`features` returns five maps, of as many
    channels, the first with the stem's resolution and each further one with half of the one before.
    """

    def __init__(
        self,
        base: int,
        plan: tuple[int, ...],
        parts: Parts,
        num_classes: int,
        stem: str,
        width: float,
        in_channels: int,
    ):
        # Only the first width is rounded: the others are multiples of it.
        (base,) = scaled_channels((base,), width)
        stride = 2 if check_stem(stem) == "imagenet" else 1
        channels, index = base, 0
        stages = []
        for stage, count in enumerate(plan):
            outputs = base << (stage + 1)
            blocks = []
            for at in range(count):
                index += 1
                attention = parts.elm_attention and index % 2 == 0
                halves = 2 if stage > 0 and at == 0 else 1
                blocks.append(BNextBlock(parts, channels, outputs, halves, attention))
                channels = outputs
            stages.append(nn.Sequential(*blocks))
        super().__init__(
            nn.Sequential(parts.stem(in_channels, base, 3, stride), nn.BatchNorm2d(base)),
            nn.Sequential(*stages),
            channels,
            parts.linear(channels, num_classes),
        )


class BNext18(_Classifier):
    """BNext's units on the plan of ResNet-18.

    Input [N, in_channels, H, W]; output logits [N, num_classes]. :meth:`features` returns the maps
    of the four stages.
    """

    def __init__(self, parts: Parts, num_classes: int, stem: str, width: float, in_channels: int):
        widths = stage_channels(width)
        imagenet = check_stem(stem) == "imagenet"
        kernel, stride = (7, 2) if imagenet else (3, 1)
        super().__init__(
            nn.Sequential(
                parts.stem(in_channels, widths[0], kernel, stride),
                nn.BatchNorm2d(widths[0]),
                *([nn.MaxPool2d(3, 2, 1)] if imagenet else []),
            ),
            build_stages((2, 2, 2, 2), widths, _block18(parts)),
            widths[-1],
            parts.linear(widths[-1], num_classes),
        )


def _block18(parts: Parts) -> Callable[[int, int, int], nn.Module]:
    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        shortcut: list[nn.Module] = []
        if parts.elm_attention:
            shortcut.append(nn.PReLU(inputs))
        if stride == 2:
            shortcut += [
                nn.AvgPool2d(2, 2),
                parts.conv(parts.stem_bits, inputs, outputs, 1),
                nn.BatchNorm2d(outputs),
            ]
        first = nn.Sequential(*shortcut)
        return nn.Sequential(
            BNextUnit(parts, inputs, outputs, 3, stride, first, parts.elm_attention),
            BNextUnit(parts, outputs, outputs, 3, 1, nn.Identity()),
        )

    return block


@register_model(input_sizes=INPUT_SIZES, source=_SOURCE, status=_STATUS)
def bnext_tiny(
    num_classes: int = 1000,
    stem: str = "imagenet",
    width: float = 1.0,
    in_channels: int = 3,
    surrogate: str | Surrogate | None = None,
    elm_attention: bool = True,
    info_rcp: bool = True,
    stem_bits: int = 8,
    se_bits: int = 8,
    head_bits: int = 8,
    ranges: str = "static",
) -> BNext:
    """BNext-T: 13 blocks, 32 to 1024 channels; 72.4 % on ImageNet as published.

    Input [N, in_channels, 224, 224] with ``stem="imagenet"`` (3x3/2) or [N, in_channels, 32, 32]
    with ``"cifar"`` (3x3/1). Other sizes work if every map that is halved is even: multiples of 32
    for ``imagenet``, of 16 for ``cifar``. ``width`` multiplies the 32 channels of the stem, to a
    multiple of 4; all others are multiples of these. ``surrogate`` None is the clipped identity
    with a window of 1.5. ``elm_attention`` and ``info_rcp`` False leave out what the paper ablates:
    the products with the bypass; mixture, squeeze-and-excite and the second batch norm of units
    without a bypass. ``stem_bits``, ``se_bits`` and ``head_bits`` are the precision of the stem, of
    squeeze-and-excite and of the classifier: 32, 8 or 4. ``ranges`` of 8 and 4 bits are
    ``"static"``, as :func:`signbit.calibrate` finds them [RECON], or ``"dynamic"``, anew in each
    pass as in the authors' networks. Only static ranges compile. Raises ValueError for other bits,
    an unknown stem, surrogate or kind of ranges, ranges or 4 bits without a layer that has them,
    and a width that is not positive. Source: arXiv 2211.12933.
    """
    parts = Parts(elm_attention, info_rcp, stem_bits, se_bits, head_bits, ranges, surrogate)
    return BNext(32, _PLAN_TINY, parts, num_classes, stem, width, in_channels)


@register_model(input_sizes=INPUT_SIZES, source=_SOURCE, status=_STATUS)
def bnext_small(
    num_classes: int = 1000,
    stem: str = "imagenet",
    width: float = 1.0,
    in_channels: int = 3,
    surrogate: str | Surrogate | None = None,
    elm_attention: bool = True,
    info_rcp: bool = True,
    stem_bits: int = 8,
    se_bits: int = 8,
    head_bits: int = 8,
    ranges: str = "static",
) -> BNext:
    """BNext-S: 13 blocks, 48 to 1536 channels; 76.1 % on ImageNet as published.

    Arguments and errors: :func:`bnext_tiny`. Source: arXiv 2211.12933.
    """
    parts = Parts(elm_attention, info_rcp, stem_bits, se_bits, head_bits, ranges, surrogate)
    return BNext(48, _PLAN_TINY, parts, num_classes, stem, width, in_channels)


@register_model(input_sizes=INPUT_SIZES, source=_SOURCE, status=_STATUS)
def bnext_middle(
    num_classes: int = 1000,
    stem: str = "imagenet",
    width: float = 1.0,
    in_channels: int = 3,
    surrogate: str | Surrogate | None = None,
    elm_attention: bool = True,
    info_rcp: bool = True,
    stem_bits: int = 8,
    se_bits: int = 8,
    head_bits: int = 8,
    ranges: str = "static",
) -> BNext:
    """BNext-M: 21 blocks, 48 to 1536 channels; 78.3 % on ImageNet as published.

    Arguments and errors: :func:`bnext_tiny`. Source: arXiv 2211.12933.
    """
    parts = Parts(elm_attention, info_rcp, stem_bits, se_bits, head_bits, ranges, surrogate)
    return BNext(48, _PLAN_MIDDLE, parts, num_classes, stem, width, in_channels)


@register_model(input_sizes=INPUT_SIZES, source=_SOURCE, status=_STATUS)
def bnext_large(
    num_classes: int = 1000,
    stem: str = "imagenet",
    width: float = 1.0,
    in_channels: int = 3,
    surrogate: str | Surrogate | None = None,
    elm_attention: bool = True,
    info_rcp: bool = True,
    stem_bits: int = 8,
    se_bits: int = 8,
    head_bits: int = 8,
    ranges: str = "static",
) -> BNext:
    """BNext-L: 29 blocks, 64 to 2048 channels; 80.6 % on ImageNet as published.

    Arguments and errors: :func:`bnext_tiny`. Source: arXiv 2211.12933.
    """
    parts = Parts(elm_attention, info_rcp, stem_bits, se_bits, head_bits, ranges, surrogate)
    return BNext(64, _PLAN_LARGE, parts, num_classes, stem, width, in_channels)


@register_model(input_sizes=INPUT_SIZES, source=_SOURCE, status=_STATUS_18)
def bnext18(
    num_classes: int = 1000,
    stem: str = "imagenet",
    width: float = 1.0,
    in_channels: int = 3,
    surrogate: str | Surrogate | None = None,
    elm_attention: bool = True,
    info_rcp: bool = True,
    stem_bits: int = 8,
    se_bits: int = 8,
    head_bits: int = 8,
    ranges: str = "static",
) -> BNext18:
    """BNext-18: eight blocks of two 3x3 units, 64 to 512 channels.

    Input [N, in_channels, 224, 224] with ``stem="imagenet"`` (7x7/2 and max-pooling) or [N,
    in_channels, 32, 32] with ``"cifar"`` (3x3/1). Other sizes work if the maps entering stages two
    to four are even: multiples of 32 for ``imagenet``, of 8 for ``cifar``. ``width`` multiplies
    stem and stages, to multiples of 4. A convolution of ``stem_bits`` downsamples the shortcuts. In
    each block's first unit x' = r: PReLU(x), downsampled where the width doubles. Other arguments
    and errors: :func:`bnext_tiny`. Source: arXiv 2211.12933.
    """
    parts = Parts(elm_attention, info_rcp, stem_bits, se_bits, head_bits, ranges, surrogate)
    return BNext18(parts, num_classes, stem, width, in_channels)
