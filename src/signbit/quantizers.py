"""Quantizers: real numbers into few bits, and the gradients to train through them.

A quantizer is a staircase, so its true gradient is zero almost everywhere. Training replaces it by
the gradient of a *surrogate*: forward is always the exact staircase, backward pretends that it was
a smooth or piecewise linear function. Four surrogates of the sign are offered here
(:class:`ClippedIdentity`, :class:`ApproxSign`, :class:`SigmoidSign`, :class:`SwishSign`); all have
the same forward, so a network may be trained with one and compiled without the compiler knowing
which.

Meanings fixed for the whole project:

* ``sign(0) = +1``, also for ``-0.0``; it is the comparison ``x >= 0``, so NaN gives ``-1``.
* rounding is half to even.
* a weight binarizer answers ``(signs, scale)``: ``signs`` is exactly +-1, ``scale`` is ``None`` or
  one number per output channel, and the effective weight is their product. They stay apart so
  that a layer can convolve +-1 with +-1, whose sums are exact integers in float32, and scale
  afterwards.

The sign and the rounding are registered with ``torch.library``: ``torch.compile`` and
``torch.export`` see one opaque operation each instead of failing on a Python autograd function.
"""

import difflib
import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = [
    "ApproxSign",
    "ClippedIdentity",
    "IdentitySign",
    "KBitQuantizer",
    "LearnedScale",
    "MeanAbsScale",
    "OverParameterizedSign",
    "PlainSign",
    "ProgressiveSign",
    "ScaledStdSign",
    "SigmoidSign",
    "Surrogate",
    "SwishSign",
    "TernaryQuantizer",
    "WeightQuantizer",
    "get_surrogate",
    "get_weight_quantizer",
    "hard_sign",
    "kbit_quantize",
    "minmax_quantize",
    "nearest_name",
    "nearest_power_of_two",
    "round_half_even",
    "scale_gradient",
    "scaled_standardization",
]


def nearest_name(name: str, known: list[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f" (did you mean {close[0]!r}?)" if close else ""


def hard_sign(x: Tensor) -> Tensor:
    """Sign with two values and no gradient: ``+1 if x >= 0 else -1``, any shape, dtype kept.

    0.0 and -0.0 give +1, NaN gives -1.
    """
    # A conversion and two passes in place take a fifth of the time of torch.where.
    return (x >= 0).to(x.dtype).mul_(2).sub_(1)


# --- operations registered with torch.library ---------------------------------------------------


def _clipped_identity_gradient(x: Tensor, window: float, grad: Tensor) -> Tensor:
    # One pass for what would be four; it leaves its limits out, and so they are the next numbers.
    limit = _next_above(window, x.dtype)
    return torch.ops.aten.hardtanh_backward(grad, x.to(grad.dtype), -limit, limit)


@functools.cache
def _next_above(number: float, dtype: torch.dtype) -> float:
    """The least number of a floating-point type that is greater than a positive one of it."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    return float((torch.tensor(number, dtype=dtype).view(bits) + 1).view(dtype))


def _approx_sign_gradient(x: Tensor, _: float, grad: Tensor) -> Tensor:
    return x.abs().mul_(-2.0).add_(2.0).clamp_min_(0.0).mul_(grad)


def _sigmoid_gradient(x: Tensor, k: float, grad: Tensor) -> Tensor:
    # One pass for what would be three: grad * (1 - s) * s.
    return torch.ops.aten.sigmoid_backward(grad, torch.sigmoid_(k * x)).mul_(2.0 * k)


def _swish_gradient(x: Tensor, beta: float, grad: Tensor) -> Tensor:
    # beta (2 - z tanh(z/2)) / (1 + cosh z); 1 / (1 + cosh z) = 2 s (1 - s) does not overflow.
    z = beta * x
    s = torch.sigmoid(z)
    return grad * (2.0 * beta * s * (1.0 - s) * (2.0 - z * torch.tanh(0.5 * z)))


def _identity_gradient(x: Tensor, _: float, grad: Tensor) -> Tensor:
    return grad.clone()


def _define_sign(name: str, gradient: Callable[[Tensor, float, Tensor], Tensor]):
    """Register ``signbit::<name>(x, parameter)``: the sign, with ``gradient`` as its backward."""

    @torch.library.custom_op(f"signbit::{name}", mutates_args=())
    def op(x: torch.Tensor, parameter: float) -> torch.Tensor:
        # hard_sign without its detour over bool, in a quarter of the time; nothing is traced here.
        return torch.ge(x, 0, out=torch.empty_like(x)).mul_(2).sub_(1)

    @op.register_fake
    def _(x, parameter):
        return torch.empty_like(x)

    def setup_context(ctx, inputs, output):
        x, ctx.parameter = inputs
        ctx.save_for_backward(x)

    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return gradient(x, ctx.parameter, grad), None

    op.register_autograd(backward, setup_context=setup_context)
    return op


_sign_clipped_identity = _define_sign("sign_clipped_identity", _clipped_identity_gradient)
_sign_approx = _define_sign("sign_approx", _approx_sign_gradient)
_sign_sigmoid = _define_sign("sign_sigmoid", _sigmoid_gradient)
_sign_swish = _define_sign("sign_swish", _swish_gradient)
_sign_identity = _define_sign("sign_identity", _identity_gradient)


@torch.library.custom_op("signbit::round_half_even", mutates_args=())
def round_half_even(x: torch.Tensor) -> torch.Tensor:
    """Round to the nearest integer, halves to the even one; the gradient passes straight through.

    Any shape, dtype kept. Forward ``round(x)``; gradient ``dx = dy`` (straight-through estimator,
    arXiv 1308.3432).
    """
    return torch.round(x)


@round_half_even.register_fake
def _(x):
    return torch.empty_like(x)


round_half_even.register_autograd(lambda ctx, grad: grad)


def scale_gradient(x: Tensor, factor: Tensor | float) -> Tensor:
    """Return ``x``; its gradient is multiplied by ``factor``, which broadcasts against it."""
    # x - x is exactly 0, so that the value is not rounded.
    return x.detach() + factor * (x - x.detach())


def nearest_power_of_two(x: Tensor) -> Tensor:
    """Round to the power of two that is nearest on a logarithmic scale; the sign is kept.

    Any shape, dtype kept: ``y = sign(x) 2**round_half_even(log2 |x|)`` with ``sign(0) = +1``; what
    is below the smallest normal number (0 too) becomes that number. The gradient passes straight
    through the rounding of the logarithm: ``dx = dy * y / x``, and 0 where x is 0. Source: the
    idea is LogNet's, arXiv 1603.01025.
    """
    magnitude = x.abs().clamp_min(torch.finfo(x.dtype).tiny)
    return hard_sign(x.detach()) * torch.exp2(round_half_even(torch.log2(magnitude)))


# --- the sign of activations --------------------------------------------------------------------


class Surrogate(nn.Module):
    """A sign whose backward pass is the gradient of a surrogate function.

    Stateless, and fixed once made. Forward: any shape -> the same shape, exactly +-1. The names of
    :func:`get_surrogate` make the four that are known; a parameter that is not positive raises
    ValueError.
    """

    def __init__(self, parameter_name: str | None = None, value: float = 0.0):
        super().__init__()
        if parameter_name is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(
                f"{type(self).__name__}: {parameter_name} must be a positive number, got {value}"
            )
        self._parameter_name = parameter_name
        self._value = float(value)

    def extra_repr(self) -> str:
        return f"{self._parameter_name}={self._value:g}" if self._parameter_name else ""


class ClippedIdentity(Surrogate):
    """Sign with the clipped straight-through gradient.

    ``y = +1 if x >= 0 else -1``; ``dx = dy if |x| <= window else 0`` (edges included; of NaN,
    either). Raises ValueError for a window that is not positive. Source: arXiv 1602.02830 (window
    1); MeliusNet, arXiv 2001.05936, uses 1.3 and PokeBNN, arXiv 2112.00133, uses 3.
    """

    def __init__(self, window: float = 1.0):
        super().__init__("window", window)

    @property
    def window(self) -> float:
        """Half width of the interval in which the gradient passes."""
        return self._value

    def forward(self, x: Tensor) -> Tensor:
        return _sign_clipped_identity(x, self._value)


class ApproxSign(Surrogate):
    """Sign with the triangular gradient of Bi-Real Net.

    ``y = +1 if x >= 0 else -1``; ``dx = dy * (2 + 2x on [-1, 0), 2 - 2x on [0, 1), else 0)``.
    Source: arXiv 1808.00278; also used by ReActNet, arXiv 2003.03488.
    """

    def forward(self, x: Tensor) -> Tensor:
        return _sign_approx(x, 0.0)


class SigmoidSign(Surrogate):
    """Sign with the bell-shaped gradient of A&B BNN.

    ``y = +1 if x >= 0 else -1``; ``dx = dy * 2 k s(kx) (1 - s(kx))``, s the logistic function: the
    gradient of the mask layer ``2 s(kx) - 1``. Raises ValueError for k that is not positive.
    Source: arXiv 2403.03739 (k = 3).
    """

    def __init__(self, k: float = 3.0):
        super().__init__("k", k)

    @property
    def k(self) -> float:
        """Steepness; the gradient at 0 is k / 2."""
        return self._value

    def forward(self, x: Tensor) -> Tensor:
        return _sign_sigmoid(x, self._value)


class SwishSign(Surrogate):
    """Sign with the gradient of SignSwish, slightly negative away from zero.

    ``y = +1 if x >= 0 else -1``. SignSwish is ``SS(x) = 2 s(bx) (1 + bx (1 - s(bx))) - 1``, s the
    logistic function, and ``dx = dy * SS'(x)`` with ``SS'(x) = b (2 - bx tanh(bx/2)) / (1 +
    cosh(bx))``: b at zero, crosses zero near ``|bx| = 2.4``, then below it. Raises ValueError for
    beta that is not positive. Source: BNN+, arXiv 1812.11800.
    """

    def __init__(self, beta: float = 5.0):
        super().__init__("beta", beta)

    @property
    def beta(self) -> float:
        """Steepness; the gradient at 0 is beta."""
        return self._value

    def forward(self, x: Tensor) -> Tensor:
        return _sign_swish(x, self._value)


class IdentitySign(Surrogate):
    """Sign with the straight-through gradient, without a window.

    ``y = +1 if x >= 0 else -1``; ``dx = dy``. For what bounds its gradient itself, such as
    :class:`~signbit.nn.MaskLayer`. Source: arXiv 1308.3432.
    """

    def forward(self, x: Tensor) -> Tensor:
        return _sign_identity(x, 0.0)


_SURROGATES: dict[str, type[Surrogate]] = {
    "clipped_identity": ClippedIdentity,
    "approx_sign": ApproxSign,
    "sigmoid": SigmoidSign,
    "swish": SwishSign,
    "identity": IdentitySign,
}


def get_surrogate(surrogate: str | Surrogate, **parameters: float) -> Surrogate:
    """Return the surrogate of that name, made with ``parameters``.

    A ready :class:`Surrogate` is passed through. Names: ``clipped_identity`` (window),
    ``approx_sign``, ``sigmoid`` (k), ``swish`` (beta), ``identity``. Raises ValueError for an
    unknown name (naming the nearest) and for parameters given beside a ready object.
    """
    if isinstance(surrogate, Surrogate):
        if parameters:
            raise ValueError(f"{surrogate} is already made; it takes no {sorted(parameters)}")
        return surrogate
    if surrogate not in _SURROGATES:
        known = list(_SURROGATES)
        hint = nearest_name(str(surrogate), known)
        raise ValueError(f"unknown surrogate {surrogate!r}{hint}; known: {', '.join(known)}")
    return _SURROGATES[surrogate](**parameters)


# --- binarizers of weights ----------------------------------------------------------------------


def _mean_abs(weight: Tensor) -> Tensor:
    """Mean absolute value of each output channel: [O, ...] -> [O]."""
    return weight.detach().abs().flatten(1).mean(1)


class WeightQuantizer(nn.Module):
    """Weight [O, ...] -> ``(signs [O, ...], scale [O] or None)``; their product is what counts."""

    def init_from(self, weight: Tensor) -> None:
        """Take initial values from a latent weight; without parameters there is nothing to do."""

    def real_weight(self, weight: Tensor) -> Tensor:
        """Return the real weight that stage one of training uses: the latent weight itself."""
        return weight


class PlainSign(WeightQuantizer):
    """Weights are their signs, without a scale.

    ``signs = sign(w)``, ``scale = None``; ``dw = dsigns where |w| <= window, else 0``. Raises
    ValueError for a window that is not positive. Source: arXiv 1602.02830.
    """

    def __init__(self, window: float = 1.0):
        super().__init__()
        self.sign = ClippedIdentity(window)

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.sign(weight), None


class MeanAbsScale(WeightQuantizer):
    """Weights are their signs times the mean magnitude of their output channel.

    ``signs = sign(w)``, ``scale_c = mean |w_c|``; ``dw = dsigns where |w| <= window, else 0``. The
    scale is detached, as in ReActNet's code: no gradient reaches w through it. Raises ValueError
    for a window that is not positive. Source: XNOR-Net, arXiv 1603.05279; ReActNet, arXiv
    2003.03488.
    """

    def __init__(self, window: float = 1.0):
        super().__init__()
        self.sign = ClippedIdentity(window)

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.sign(weight), _mean_abs(weight)


class LearnedScale(WeightQuantizer):
    """Weights are their signs times a learned number per output channel.

    ``signs = sign(w)``, ``scale_c`` a parameter; ``dw = dsigns where |w| <= window, else 0``; the
    gradient of the scale is the ordinary one of the product. The scale starts at ``mean |w_c|``: at
    :meth:`init_from`, or else at the first use. Raises ValueError for a weight with another number
    of channels. Source: Bulat and Tzimiropoulos, arXiv 1909.13863.
    """

    def __init__(self, out_channels: int, window: float = 1.0):
        super().__init__()
        self.sign = ClippedIdentity(window)
        self.scale = nn.Parameter(torch.ones(out_channels))
        self.register_buffer("initialised", torch.tensor(False))
        self._initialised = False  # the buffer's value, readable while a compiler traces

    @torch.no_grad()
    def init_from(self, weight: Tensor) -> None:
        """Set the scale to the mean magnitude of each channel of ``weight`` [O, ...]."""
        self._check(weight)
        self.scale.copy_(_mean_abs(weight))
        self.initialised.fill_(True)
        self._initialised = True

    def _check(self, weight: Tensor) -> None:
        if weight.shape[0] != self.scale.shape[0]:
            raise ValueError(
                f"LearnedScale has {self.scale.shape[0]} channels, the weight {weight.shape[0]}"
            )

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._initialised = bool(self.initialised)

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        self._check(weight)
        if not self._initialised:
            self.init_from(weight)
        return self.sign(weight), self.scale


def scaled_standardization(weight: Tensor, eps: float = 1e-5) -> Tensor:
    """Standardise each output channel of a weight and divide by the root of its fan-in.

    Weight [O, ...] -> the same shape: ``(w - mean_c) / (std_c + eps) / sqrt(N)``, with the mean and
    the population standard deviation of channel c and the fan-in ``N = w[0].numel()``. Behind it, a
    sum over N inputs of variance 1 has variance 1. The gradient is the ordinary one. Source: scaled
    weight standardization, arXiv 2101.08692, as in A&B BNN, arXiv 2403.03739.
    """
    dims = tuple(range(1, weight.dim()))
    std, mean = torch.std_mean(weight, dims, correction=0, keepdim=True)
    return (weight - mean) / (std + eps) / math.sqrt(weight[0].numel())


class ScaledStdSign(WeightQuantizer):
    """Weights are the signs of standardised latent weights, times their mean magnitude and a gain.

    Latent weight [O, I, H, W]. With ``v =`` :func:`scaled_standardization` ``(w)`` and the mean
    magnitude ``s_c = mean |v_c|`` (detached): ``signs = sign(v)``, so the threshold is the mean of
    the channel, and ``scale_c = s_c * gain_c``; ``gain`` [O, 1, 1, 1] is a parameter that starts at
    1. With ``scale="power_of_two"`` the scale is :func:`nearest_power_of_two` of that [RECON], so
    that a shift can apply it. In stage one of training the weight is ``gain_c * v``.

    Gradients: of ``s_c * signs`` straight through to v, and from there the ordinary one into w; of
    the gain the ordinary one of the product (with a power of two, straight through the rounding of
    the logarithm). The authors let it through where ``|v| <= 1`` only, which is everywhere: of N
    standardised weights none exceeds ``sqrt(N - 1) / sqrt(N)``. Raises ValueError for an unknown
    ``scale``. Source: A&B BNN, arXiv 2403.03739.
    """

    SCALES = ("real", "power_of_two")

    def __init__(self, out_channels: int, scale: str = "real", eps: float = 1e-5):
        super().__init__()
        if scale not in self.SCALES:
            hint = nearest_name(str(scale), list(self.SCALES))
            raise ValueError(f"unknown scale {scale!r}{hint}; known: {', '.join(self.SCALES)}")
        self.scale = scale
        self.eps = eps
        self.sign = IdentitySign()
        self.gain = nn.Parameter(torch.ones(out_channels, 1, 1, 1))

    def real_weight(self, weight: Tensor) -> Tensor:
        """Return ``gain_c`` times the standardised weight."""
        return self.gain * scaled_standardization(weight, self.eps)

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        standardised = scaled_standardization(weight, self.eps)
        magnitude = _mean_abs(standardised)
        # The layer multiplies the signs by a scale that holds the magnitude. Straight through is
        # what both make together, so that the magnitude must not count in the gradient.
        inverse = magnitude.clamp_min(torch.finfo(weight.dtype).tiny).reciprocal()
        signs = scale_gradient(self.sign(standardised), inverse.view_as(self.gain))
        scale = magnitude * self.gain.flatten()
        return signs, nearest_power_of_two(scale) if self.scale == "power_of_two" else scale

    def extra_repr(self) -> str:
        return f"scale={self.scale}"


class ProgressiveSign(WeightQuantizer):
    """Weights that are soft at first and become their signs as a temperature falls.

    ``scale = None``. While :meth:`set_temperature` has set a temperature T > 0, training takes
    ``clamp(w / T, -1, 1)``, which is the sign wherever ``|w| >= T``; otherwise, and in evaluation
    always, it is ``sign(w)``, so that an accuracy is never one of soft weights. ``dw = dsigns``
    throughout: neither the slope ``1 / T`` nor the clamp counts. Source: progressive binarisation
    of BNext, arXiv 2211.12933, whose code evaluates with soft weights too.
    """

    temperature: Tensor

    def __init__(self):
        super().__init__()
        self.sign = IdentitySign()
        self.soft = False
        # A tensor, so that a compiled network is not compiled anew for each of its values; like
        # `soft` a setting of the schedule, which weights are saved without.
        self.register_buffer("temperature", torch.zeros(()), persistent=False)

    def set_temperature(self, temperature: float) -> None:
        """Train with soft weights at a temperature above 0, with their signs at 0.

        Raises ValueError for a temperature that is negative or not finite.
        """
        if not (math.isfinite(temperature) and temperature >= 0):
            raise ValueError(f"ProgressiveSign: temperature must be >= 0, got {temperature}")
        self.soft = temperature > 0
        self.temperature.fill_(temperature)

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        if not (self.soft and self.training):
            return self.sign(weight), None
        soft = (weight.detach() / self.temperature).clamp(-1.0, 1.0)
        return soft + (weight - weight.detach()), None


class OverParameterizedSign(WeightQuantizer):
    """Weights with more parameters in training than at inference.

    ``signs = sign(a * w)``, ``scale_c = gain * magnitude_c``, with a learned factor ``a`` for every
    ``element``, ``kernel`` or ``filter`` of the weight, a learned magnitude per output channel, and
    one learned gain, which is the scale k of the layer's input: a sum over k x is k times the sum
    over x, so it can stand behind the exact sum over +-1. Gradients: the sign's is that of the
    clipped identity, at ``u = a * w``; all others are the products' own. Factors and gain start at
    1, magnitudes at ``mean |a w_c|``: at :meth:`init_from`. What is compiled is the bits of ``a *
    w`` alone: scales fold into thresholds. Stage one of training uses the real weights ``a * w``.

    Raises ValueError for an unknown granularity, a window that is not positive, or a weight of
    another shape. Source: [RECON] of BiNeal networks' over-parameterisation, arXiv 2202.03716.
    """

    GRANULARITIES = ("element", "kernel", "filter")

    def __init__(
        self, weight_shape: tuple[int, ...], granularity: str = "element", window: float = 1.0
    ):
        super().__init__()
        if granularity not in self.GRANULARITIES:
            hint = nearest_name(str(granularity), list(self.GRANULARITIES))
            raise ValueError(
                f"unknown granularity {granularity!r}{hint}; known: {', '.join(self.GRANULARITIES)}"
            )
        self.weight_shape = tuple(weight_shape)
        self.granularity = granularity
        self.sign = ClippedIdentity(window)
        own = {"filter": 1, "kernel": 2, "element": len(weight_shape)}[granularity]
        shape = (*weight_shape[:own], *(1 for _ in weight_shape[own:]))
        self.factor = nn.Parameter(torch.ones(shape))
        self.magnitude = nn.Parameter(torch.ones(weight_shape[0]))
        self.gain = nn.Parameter(torch.ones(()))

    @torch.no_grad()
    def init_from(self, weight: Tensor) -> None:
        """Set the magnitudes to those of the channels of ``a * weight``."""
        self.magnitude.copy_(_mean_abs(self.real_weight(weight)))

    def real_weight(self, weight: Tensor) -> Tensor:
        if tuple(weight.shape) != self.weight_shape:
            raise ValueError(
                f"OverParameterizedSign was made for a weight of shape {self.weight_shape}, not "
                f"{tuple(weight.shape)}"
            )
        return self.factor * weight

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.sign(self.real_weight(weight)), self.gain * self.magnitude

    def extra_repr(self) -> str:
        return f"granularity={self.granularity}"


_WEIGHT_QUANTIZERS: dict[str, Callable[[int], WeightQuantizer]] = {
    "sign": lambda out_channels: PlainSign(),
    "mean_abs": lambda out_channels: MeanAbsScale(),
    "learned": LearnedScale,
    "progressive": lambda out_channels: ProgressiveSign(),
}


def get_weight_quantizer(name: str | WeightQuantizer, out_channels: int) -> WeightQuantizer:
    """Return the weight binarizer of that name for a layer with ``out_channels`` outputs.

    Names: ``sign`` (:class:`PlainSign`), ``mean_abs`` (:class:`MeanAbsScale`), ``learned``
    (:class:`LearnedScale`), ``progressive`` (:class:`ProgressiveSign`); a ready
    :class:`WeightQuantizer` is passed through. Raises ValueError for an unknown name (naming the
    nearest).
    """
    if isinstance(name, WeightQuantizer):
        return name
    if name not in _WEIGHT_QUANTIZERS:
        known = list(_WEIGHT_QUANTIZERS)
        hint = nearest_name(str(name), known)
        raise ValueError(f"unknown weight quantizer {name!r}{hint}; known: {', '.join(known)}")
    return _WEIGHT_QUANTIZERS[name](out_channels)


# --- several bits and three values --------------------------------------------------------------


def _integer_range(bits: int, signed: bool) -> tuple[int, int]:
    lowest_bits = 2 if signed else 1
    if not isinstance(bits, int) or not lowest_bits <= bits <= 16:
        kind = "signed" if signed else "unsigned"
        raise ValueError(f"{kind} bits must be an integer from {lowest_bits} to 16, got {bits!r}")
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


def kbit_quantize(
    x: Tensor, bits: int, scale: Tensor | float, signed: bool = True, zero_point: int = 0
) -> Tensor:
    """Round ``x`` to a uniform grid of ``2**bits`` values and return it in real units.

    ``q = clip(round_half_even(x / scale) + zero_point, lo, hi)``, ``y = (q - zero_point) * scale``
    with lo..hi = -2^(bits-1)..2^(bits-1)-1 if signed, else 0..2^bits-1. Any shape; ``scale``
    broadcasts against x. Gradient: ``dx = dy`` where q is not clipped, else 0; if ``scale`` is a
    tensor that requires grad, ``dscale = sum dy * (q - zero_point - x/scale if not clipped, else q
    - zero_point)``. Raises ValueError for bits outside 2..16 (1..16 unsigned) or a zero point
    outside lo..hi. Source: LSQ, arXiv 1902.08153.
    """
    low, high = _integer_range(bits, signed)
    if not low <= zero_point <= high:
        raise ValueError(f"zero_point must be in {low}..{high}, got {zero_point}")
    # torch.clamp passes the gradient at its bounds: it stops where the rounded value is clipped.
    q = round_half_even(x / scale).clamp(low - zero_point, high - zero_point)
    return q * scale


def minmax_quantize(x: Tensor, bits: int, dims: tuple[int, ...]) -> Tensor:
    """Round ``x`` to ``2**bits`` values between its own extremes over ``dims``, in real units.

    With min and max over ``dims``, ``n = 2**bits - 1`` and ``width = max - min + 1e-8``: ``q =
    round_half_even((x - min) / width * n)``, ``y = q * width / n + min``. Any shape. Gradient:
    straight through, ``dx = dy``, but for rounding; the extremes have none. Raises ValueError for
    bits outside 1..16. Source: BNext's code, arXiv 2211.12933, for q; that y multiplies by the
    width that q divided by, 1e-8 included, is a reconstruction.
    """
    n = _integer_range(bits, signed=False)[1]
    low, high = x.detach().amin(dims, keepdim=True), x.detach().amax(dims, keepdim=True)
    width = high - low + 1e-8
    return round_half_even((x - low) / width * n) * width / n + low


class KBitQuantizer(nn.Module):
    """Uniform quantizer of ``bits`` bits with one learned step.

    The parameter is the step's logarithm, so that it stays positive: ``scale = 2**log2_scale``
    and ``y = kbit_quantize(x, bits, scale, signed)``, any shape; gradients as there. Start it with
    :meth:`init_from` or ``init_scale``. Raises ValueError for bad bits or scale. Source: LSQ, arXiv
    1902.08153.
    """

    def __init__(self, bits: int, signed: bool = True, init_scale: float = 1.0):
        super().__init__()
        _integer_range(bits, signed)
        if not (math.isfinite(init_scale) and init_scale > 0):
            raise ValueError(f"init_scale must be a positive number, got {init_scale}")
        self.bits = bits
        self.signed = signed
        self.log2_scale = nn.Parameter(torch.tensor(math.log2(init_scale)))

    @property
    def scale(self) -> float:
        """The step of the grid."""
        return float(torch.exp2(self.log2_scale.detach()))

    @torch.no_grad()
    def init_from(self, x: Tensor) -> None:
        """Set the step to LSQ's start, ``2 mean|x| / sqrt(hi)``; zeros leave it as it is."""
        mean = x.abs().mean()
        if mean > 0:
            high = _integer_range(self.bits, self.signed)[1]
            self.log2_scale.copy_(torch.log2(2.0 * mean / math.sqrt(high)))

    def forward(self, x: Tensor) -> Tensor:
        return kbit_quantize(x, self.bits, torch.exp2(self.log2_scale), self.signed)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, signed={self.signed}"


class TernaryQuantizer(nn.Module):
    """Weights become -1, 0 or +1 times a number per output channel.

    Weight [O, ...] -> ``(t [O, ...], scale [O])``. With ``delta_c = threshold * mean |w_c|``: t =
    sign(w) where |w| > delta_c, else 0; ``scale_c`` = mean of |w| over the weights that are not 0,
    or 0 if there are none (detached). Gradient: ``dw = dt where |w| <= window, else 0``. Raises
    ValueError for a threshold below 0 or a window that is not positive. Source: Ternary Weight
    Networks, arXiv 1605.04711 (threshold 0.7).
    """

    def __init__(self, threshold: float = 0.7, window: float = 1.0):
        super().__init__()
        if not (math.isfinite(threshold) and threshold >= 0):
            raise ValueError(f"threshold must be a number >= 0, got {threshold}")
        self.threshold = float(threshold)
        self.sign = ClippedIdentity(window)

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        magnitude = weight.detach().abs().flatten(1)
        kept = magnitude > self.threshold * magnitude.mean(1, keepdim=True)
        scale = (magnitude * kept).sum(1) / kept.sum(1).clamp_min(1)
        # Multiplying by the mask would stop the gradient of the zeros: they could never leave.
        signs = self.sign(weight)
        zeroed = signs.detach() * ~kept.view_as(weight)
        return signs - zeroed, scale

    def extra_repr(self) -> str:
        return f"threshold={self.threshold:g}"
