"""A&B BNN: binary networks that add and shift where others multiply, and the networks they replace.

No batch norm: weights are standardised (:class:`~signbit.nn.ScaledStdBinaryConv2d`), each branch is
multiplied by ``alpha = 1/4``, and before each sign the stream is divided by its expected standard
deviation, which the sign makes disappear (:mod:`signbit.nn.mask_layer`). One layer::

    x -> NormalizedSign -> binary 3x3(stride) -> * alpha -> + -> QRPReLU -> out
    x -> identity, or a downsampling shortcut --------------^

Every network comes in three variants:

``ab``
    A&B BNN itself: the sign with the mask layer's gradient, alpha 1/4, slopes that are powers of
    two.
``normalizer_free``
    The same without batch norm but with real multiplications: alpha 0.2, real RPReLU slopes and
    the gradient of Bi-Real Net. [RECON] The authors' comparison is BNN without BN; alpha and
    gradient are our choice.
``batch_norm``
    The network with a batch norm behind each binary convolution (``mean |w| * sign(w)``), with
    real-valued RPReLU slopes, stem, classifier and, but in XNOR-Net, 1x1 downsampling. [RECON]
    What the published batch norm networks leave open is as in ``ab``: where the activations stand.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from signbit.models.expected_variance import reactnet_a_betas, reactnet_betas
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
    NormalizedSign,
    QRPReLU,
    RLeakyReLU,
    RPReLU,
    RSign,
    ScaledStdBinaryConv2d,
    ScaledStdConv2d,
    Sign,
)
from signbit.quantizers import ScaledStdSign, Surrogate, nearest_name

_SOURCE = "A&B BNN, arXiv 2403.03739"
_STATUS = "the authors' network; the variants normalizer_free and batch_norm are baselines [RECON]"

VARIANTS = ("ab", "normalizer_free", "batch_norm")
ACTIVATIONS = {"qrprelu": QRPReLU, "rleakyrelu": RLeakyReLU, "rprelu": RPReLU}
_ALPHAS = {"ab": 0.25, "normalizer_free": 0.2}
_STRIDES_A = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
_MULTIPLES_A = (2, 4, 4, 8, 8, 16, 16, 16, 16, 16, 16, 32, 32)


def _choose(argument: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        hint = nearest_name(str(value), list(known))
        raise ValueError(f"unknown {argument} {value!r}{hint}; known: {', '.join(known)}")
    return value


class ScaledBranch(nn.Module):
    """A convolution whose output is multiplied by a fixed number: ``alpha * conv(x)``."""

    def __init__(self, conv: nn.Module, alpha: float):
        super().__init__()
        self.conv = conv
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * self.conv(x)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha:g}"


@dataclass(frozen=True)
class Parts:
    """What a variant is built from.

    Raises ValueError for an unknown variant, activation or scale, and where a baseline is asked for
    slopes or scales that are powers of two.
    """

    variant: str
    activation: str | None
    scale: str
    given_surrogate: str | Surrogate | None

    def __post_init__(self):
        _choose("variant", self.variant, VARIANTS)
        _choose("scale", self.scale, ScaledStdSign.SCALES)
        if self.activation is not None:
            _choose("activation", self.activation, tuple(ACTIVATIONS))
        if self.variant != "ab" and self.activation not in (None, "rprelu"):
            raise ValueError(f"variant {self.variant!r} has activation 'rprelu' only")
        if self.variant != "ab" and self.scale != "real":
            raise ValueError(f"variant {self.variant!r} has scale 'real' only")

    @property
    def normalized(self) -> bool:
        """Whether there is batch norm."""
        return self.variant == "batch_norm"

    @property
    def alpha(self) -> float:
        """The factor of every branch; 1 with batch norm."""
        return _ALPHAS.get(self.variant, 1.0)

    @property
    def surrogate(self) -> str | Surrogate:
        """The surrogate that was asked for, or else the variant's."""
        if self.given_surrogate is not None:
            return self.given_surrogate
        return "sigmoid" if self.variant == "ab" else "approx_sign"

    def sign(self, channels: int, beta: float, bias: bool) -> nn.Module:
        """The sign before a convolution."""
        if not self.normalized:
            return NormalizedSign(channels if bias else None, beta, self.surrogate)
        return RSign(channels, self.surrogate) if bias else Sign(self.surrogate)

    def branch(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
        """A binary convolution with what brings its sums to size."""
        conv = self.binary_conv(inputs, outputs, kernel, stride)
        return conv if self.normalized else ScaledBranch(conv, self.alpha)

    def binary_conv(self, inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
        """A convolution with binary weights."""
        if self.normalized:
            conv = BinaryConv2d(inputs, outputs, kernel, stride, kernel // 2)
            return nn.Sequential(conv, nn.BatchNorm2d(outputs))
        return ScaledStdBinaryConv2d(inputs, outputs, kernel, stride, kernel // 2, scale=self.scale)

    def real_conv(self, inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
        """A convolution with real weights."""
        if self.normalized:
            conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
            return nn.Sequential(conv, nn.BatchNorm2d(outputs))
        return ScaledStdConv2d(inputs, outputs, kernel, stride, kernel // 2)

    def act(self, channels: int) -> nn.Module:
        """The activation behind a layer's sum."""
        chosen = self.activation or ("qrprelu" if self.variant == "ab" else "rprelu")
        return ACTIVATIONS[chosen](channels)


class ResidualLayer(nn.Module):
    """One layer, as drawn above: real [N, I, H, W] -> [N, O, H / stride, W / stride].

    With stride 2 height and width must be even where the shortcut has 2x2 average pooling.
    """

    def __init__(self, sign: nn.Module, branch: nn.Module, shortcut: nn.Module, act: nn.Module):
        super().__init__()
        self.sign = sign
        self.branch = branch
        self.shortcut = shortcut
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.branch(self.sign(x)) + self.shortcut(x))


class ABResNet(nn.Module):
    """A network on the plan of a ResNet with one convolution a layer, stem and classifier real.

    Input [N, in_channels, H, W]; output logits [N, num_classes]. ``family`` is ``"reactnet"``,
    ``"birealnet"`` or ``"xnornet"``.
    """

    def __init__(
        self,
        family: str,
        layers: tuple[int, ...],
        parts: Parts,
        num_classes: int,
        stem: str,
        width: float,
        in_channels: int,
    ):
        super().__init__()
        self.source_note = f"source: {_SOURCE}; variant {parts.variant}"
        widths = stage_channels(width)
        react = family == "reactnet"
        imagenet = check_stem(stem) == "imagenet"
        kernel, stride = (7, 2) if imagenet else (3, 1)
        # Networks without an activation in each layer have one at either end of their stages; the
        # stem's stands before the pooling, as in the authors' code: learned slopes may be negative.
        self.stem = nn.Sequential(
            parts.real_conv(in_channels, widths[0], kernel, stride),
            *([] if react else [nn.PReLU(widths[0])]),
            *([nn.MaxPool2d(3, 2, 1)] if imagenet else []),
        )
        betas = _flat(reactnet_betas(layers, parts.alpha))

        def make(inputs: int, outputs: int, stride: int) -> ResidualLayer:
            return ResidualLayer(
                parts.sign(inputs, next(betas), bias=react),
                parts.branch(inputs, outputs, 3, stride),
                nn.Identity() if stride == 1 else _downsample(family, parts, inputs, outputs),
                parts.act(outputs) if react else nn.Identity(),
            )

        self.stages = build_stages(layers, widths, make)
        self.act = nn.Identity() if react else nn.PReLU(widths[-1])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(self.pool(self.act(self.stages(self.stem(x))))))

    def extra_repr(self) -> str:
        return self.source_note


def _flat(betas: list[list[float]]) -> Iterator[float]:
    return iter([beta for stage in betas for beta in stage])


def _downsample(family: str, parts: Parts, inputs: int, outputs: int) -> nn.Module:
    if family == "xnornet":
        return parts.binary_conv(inputs, outputs, 1, 2)
    if family == "reactnet" and not parts.normalized:
        conv = parts.binary_conv(inputs, outputs, 1, 1)
    else:
        conv = parts.real_conv(inputs, outputs, 1, 1)
    return nn.Sequential(nn.AvgPool2d(2, 2), conv)


class ReActNetABlock(nn.Module):
    """A block of ReActNet-A: a 3x3 and a 1x1 layer; [N, I, H, W] -> [N, O, H / stride, W / stride].

    O is I or 2 I. Where it is 2 I, two 1x1 convolutions read the same bits, and their sums with the
    shortcut stand side by side. With stride 2 height and width must be even.
    """

    def __init__(
        self, parts: Parts, inputs: int, outputs: int, stride: int, betas: tuple[float, float]
    ):
        super().__init__()
        self.sign1 = parts.sign(inputs, betas[0], bias=True)
        self.branch1 = parts.branch(inputs, inputs, 3, stride)
        self.shortcut = nn.Identity() if stride == 1 else nn.AvgPool2d(2, 2)
        self.act1 = parts.act(inputs)
        self.sign2 = parts.sign(inputs, betas[1], bias=True)
        self.branch2a = parts.branch(inputs, inputs, 1)
        self.branch2b = parts.branch(inputs, inputs, 1) if outputs == 2 * inputs else None
        self.act2 = parts.act(outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act1(self.branch1(self.sign1(x)) + self.shortcut(x))
        bits = self.sign2(h)
        y = self.branch2a(bits) + h
        if self.branch2b is not None:
            y = torch.cat([y, self.branch2b(bits) + h], 1)
        return self.act2(y)


class ABReActNetA(nn.Module):
    """A network on the plan of MobileNetV1, stem and classifier real.

    Input [N, in_channels, H, W]; output logits [N, num_classes].
    """

    def __init__(self, parts: Parts, num_classes: int, stem: str, width: float, in_channels: int):
        super().__init__()
        self.source_note = f"source: {_SOURCE}; variant {parts.variant}"
        # Only the first width is rounded: the others are multiples of it.
        (base,) = scaled_channels((32,), width)
        stride = 2 if check_stem(stem) == "imagenet" else 1
        self.stem = parts.real_conv(in_channels, base, 3, stride)
        betas = reactnet_a_betas(_STRIDES_A, parts.alpha)
        channels = base
        blocks = []
        for multiple, stride, pair in zip(_MULTIPLES_A, _STRIDES_A, betas, strict=True):
            blocks.append(ReActNetABlock(parts, channels, multiple * base, stride, pair))
            channels = multiple * base
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(self.pool(self.blocks(self.stem(x)))))

    def extra_repr(self) -> str:
        return self.source_note


@register_model(input_sizes=INPUT_SIZES, source=_SOURCE, status=_STATUS)
def ab_reactnet18(
    num_classes: int = 1000,
    stem: str = "imagenet",
    width: float = 1.0,
    in_channels: int = 3,
    surrogate: str | Surrogate | None = None,
    variant: str = "ab",
    activation: str | None = None,
    scale: str = "real",
) -> ABResNet:
    """A&B BNN's ReActNet-18: layers [4, 4, 4, 4], binary 1x1 downsampling of the real stream.

    Input [N, in_channels, 224, 224] with ``stem="imagenet"`` (7x7/2 and max-pooling) or [N,
    in_channels, 32, 32] with ``"cifar"`` (3x3). Other sizes work if the maps entering stages two to
    four are even: multiples of 32 for ``imagenet``, of 8 for ``cifar``. ``width`` multiplies stem
    and stages (64, 128, 256, 512), to multiples of 4. ``variant``: ``"ab"``, ``"normalizer_free"``
    or ``"batch_norm"``, see :mod:`signbit.models.ab_bnn`. ``surrogate`` None is ``sigmoid`` in
    ``ab`` and ``approx_sign`` in the baselines. ``activation``: ``"qrprelu"`` (if None, in ``ab``),
    ``"rleakyrelu"`` (slope 2^-3) or ``"rprelu"`` (in the baselines). ``scale="power_of_two"``
    rounds the scales of binary convolutions, see :class:`~signbit.quantizers.ScaledStdSign`.
    Raises ValueError for an unknown name, a width that is not positive, and a baseline with an
    activation or scale that only ``ab`` has. Source: arXiv 2403.03739.
    """
    parts = Parts(variant, activation, scale, surrogate)
    return ABResNet("reactnet", (4, 4, 4, 4), parts, num_classes, stem, width, in_channels)


@register_model(input_sizes=INPUT_SIZES, source=_SOURCE, status=_STATUS)
def ab_reactnet34(
    num_classes: int = 1000,
    stem: str = "imagenet",
    width: float = 1.0,
    in_channels: int = 3,
    surrogate: str | Surrogate | None = None,
    variant: str = "ab",
    activation: str | None = None,
    scale: str = "real",
) -> ABResNet:
    """A&B BNN's ReActNet-34: layers [6, 8, 12, 6]; otherwise as :func:`ab_reactnet18`.

    Source: arXiv 2403.03739.
    """
    parts = Parts(variant, activation, scale, surrogate)
    return ABResNet("reactnet", (6, 8, 12, 6), parts, num_classes, stem, width, in_channels)


@register_model(input_sizes=INPUT_SIZES, source=_SOURCE, status=_STATUS)
def ab_birealnet18(
    num_classes: int = 1000,
    stem: str = "imagenet",
    width: float = 1.0,
    in_channels: int = 3,
    surrogate: str | Surrogate | None = None,
    variant: str = "ab",
    scale: str = "real",
) -> ABResNet:
    """A&B BNN's BiResNet-18: layers [4, 4, 4, 4] with the shortcuts of Bi-Real Net.

    There are no biases or activations inside the stages, but one PReLU behind the stem and one
    before global pooling. 2x2 average pooling and a 1x1 convolution downsample the stream,
    with real weights also in stage two of training. That the expected variances follow the rule of
    ReActNet-18 is our choice [RECON].
    Arguments and errors: :func:`ab_reactnet18`. Source: arXiv 2403.03739.
    """
    parts = Parts(variant, None, scale, surrogate)
    return ABResNet("birealnet", (4, 4, 4, 4), parts, num_classes, stem, width, in_channels)


@register_model(input_sizes=INPUT_SIZES, source=_SOURCE, status=_STATUS)
def ab_birealnet34(
    num_classes: int = 1000,
    stem: str = "imagenet",
    width: float = 1.0,
    in_channels: int = 3,
    surrogate: str | Surrogate | None = None,
    variant: str = "ab",
    scale: str = "real",
) -> ABResNet:
    """A&B BNN's BiResNet-34: layers [6, 8, 12, 6]; otherwise as :func:`ab_birealnet18`.

    Source: arXiv 2403.03739.
    """
    parts = Parts(variant, None, scale, surrogate)
    return ABResNet("birealnet", (6, 8, 12, 6), parts, num_classes, stem, width, in_channels)


@register_model(input_sizes=INPUT_SIZES, source=_SOURCE, status=_STATUS)
def ab_xnornet18(
    num_classes: int = 1000,
    stem: str = "imagenet",
    width: float = 1.0,
    in_channels: int = 3,
    surrogate: str | Surrogate | None = None,
    variant: str = "ab",
    scale: str = "real",
) -> ABResNet:
    """A&B BNN's XnorNet-18: as :func:`ab_birealnet18`, but with binary downsampling.

    A 1x1 convolution of stride 2 with binary weights, without pooling, reads the real stream.
    Source: arXiv 2403.03739.
    """
    parts = Parts(variant, None, scale, surrogate)
    return ABResNet("xnornet", (4, 4, 4, 4), parts, num_classes, stem, width, in_channels)


@register_model(input_sizes=INPUT_SIZES, source=_SOURCE, status=_STATUS)
def ab_reactnet_a(
    num_classes: int = 1000,
    stem: str = "imagenet",
    width: float = 1.0,
    in_channels: int = 3,
    surrogate: str | Surrogate | None = None,
    variant: str = "ab",
    activation: str | None = None,
    scale: str = "real",
) -> ABReActNetA:
    """A&B BNN's ReActNet-A: 13 blocks on the plan of MobileNetV1, 32 to 1024 channels.

    Input [N, in_channels, 224, 224] with ``stem="imagenet"`` (3x3/2) or [N, in_channels, 32, 32]
    with ``"cifar"`` (3x3/1). Other sizes work if every map that is halved is even: multiples of 32
    for ``imagenet``, of 16 for ``cifar``. ``width`` multiplies the 32 channels of the stem, to a
    multiple of 4; all others are multiples of these. Other arguments and errors:
    :func:`ab_reactnet18`. Source: arXiv 2403.03739.
    """
    parts = Parts(variant, activation, scale, surrogate)
    return ABReActNetA(parts, num_classes, stem, width, in_channels)
