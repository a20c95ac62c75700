"""How each layer becomes a captured node: its operation, attributes and parameters.

`read_layer` answers for one module. What it cannot take, it still describes as well as it can (a
real-valued convolution is captured as `conv2d`), together with the reasons why the compiler
refuses it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from signbit import nn as snn
from signbit.nn.geometry import against_padding
from signbit.quantizers import SigmoidSign

OUTSIDE = "use it outside of the model, on the program's outputs"
REAL = "it computes in real numbers"
TRAINED = 'for a trained network, signbit.to_8bit(model, x) or arithmetic="integer"'
UNCALIBRATED = "its input range is not known: call signbit.calibrate(model, loader), or train first"


Pair = int | tuple[int, ...]


@dataclass
class Layer:
    """A module as a captured node would hold it, and why it is refused (empty: it is not).

    Attributes:
        op, attrs, params: as in `CAPTURED_OPS`; a parameter a channel may have one number for all.
        refused: the reasons.
        before: element-wise layers that the last input walks through first. `add` and `mul` of one
            input read it twice: as it is, and behind these.
    """

    op: str
    attrs: dict[str, int | float] = field(default_factory=dict)
    params: dict[str, np.ndarray] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    before: list[Layer] = field(default_factory=list)
    whole: bool = False


def array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as float64."""
    return tensor.detach().cpu().double().numpy()


def pair(value: Pair) -> tuple[int, int]:
    """Two numbers, as PyTorch reads one, two, or a tuple of one."""
    if not isinstance(value, tuple | list):
        return value, value
    return tuple(value) * 2 if len(value) == 1 else tuple(value)


def window(kernel: Pair, stride: Pair, pad: Pair) -> dict[str, int]:
    """The attributes of a window."""
    names = ("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_h", "pad_w")
    return dict(zip(names, (*pair(kernel), *pair(stride), *pair(pad)), strict=True))


def _conv_attrs(module: nn.Module) -> dict[str, int]:
    dilation_h, dilation_w = pair(module.dilation)
    padding = module.padding
    if isinstance(padding, str):
        # "same": what is odd stands behind the image in PyTorch; counts do not see it
        reach = zip(pair(module.dilation), pair(module.kernel_size), strict=True)
        padding = tuple(d * (k - 1) // 2 for d, k in reach) if padding == "same" else 0
    return {
        "in_channels": module.in_channels,
        "out_channels": module.out_channels,
        **window(module.kernel_size, module.stride, padding),
        "dilation_h": dilation_h,
        "dilation_w": dilation_w,
        "groups": module.groups,
    }


def _linear_attrs(module: nn.Module) -> dict[str, int]:
    return {"in_channels": module.in_features, "out_channels": module.out_features}


def _binary(module: snn.BinaryLayer, op: str, attrs: dict[str, int]) -> Layer:
    try:
        weight, scale = module.binary_weight()
    except ValueError as error:
        return Layer("unsupported", attrs, refused=[str(error)])
    params = {"weight": weight.cpu().numpy(), "scale": array(scale)}
    if module.bias is not None:
        params["bias"] = array(module.bias)
    layer = Layer(op, attrs, params)
    if not module.binary_weights:
        layer.refused.append(
            "its weights are still real-valued: call signbit.nn.set_binary_weights(model, True)"
        )
    return layer


def _binary_conv2d(module: snn.BinaryConv2d) -> Layer:
    attrs = _conv_attrs(module) | {"pad_value": module.padding_value}
    return _binary(module, "binary_conv2d", attrs)


def _binary_linear(module: snn.BinaryLinear) -> Layer:
    return _binary(module, "binary_linear", _linear_attrs(module))


def _quant(module: snn.QuantLayer, op: str, attrs: dict[str, int | float]) -> Layer:
    weight, weight_scale = module.quantized_weight()
    params = {
        "weight": weight.cpu().numpy(),
        # the layer multiplies both scales in float32
        "scale": array(module.input_scale.float() * weight_scale),
    }
    if module.bias is not None:
        params["bias"] = array(module.bias)
    attrs = attrs | {
        "bits": module.bits,
        "zero_point": int(module.input_zero_point),
        "inv_input_scale": float(module.inv_input_scale),
    }
    layer = Layer(op, attrs, params)
    if not module.calibrated:
        layer.refused.append(UNCALIBRATED)
    return layer


def _quant_conv2d(module: snn.QuantConv2d) -> Layer:
    return _quant(module, "quant_conv2d", _conv_attrs(module))


def _quant_linear(module: snn.QuantLinear) -> Layer:
    return _quant(module, "quant_linear", _linear_attrs(module))


def _dynamic(
    module: snn.DynamicQuantLayer, op: str, attrs: dict[str, int | float], use: str
) -> Layer:
    params = {"weight": array(module.weight)}
    if module.bias is not None:
        params["bias"] = array(module.bias)
    reason = f"dynamic ranges are for parity only: use signbit.nn.{use} (BNext: ranges='static')"
    return Layer(op, attrs | {"bits": module.bits}, params, [reason])


def _dynamic_quant_conv2d(module: snn.DynamicQuantConv2d) -> Layer:
    return _dynamic(module, "conv2d", _conv_attrs(module), "QuantConv2d")


def _dynamic_quant_linear(module: snn.DynamicQuantLinear) -> Layer:
    return _dynamic(module, "linear", _linear_attrs(module), "QuantLinear")


def _batch_norm(module: nn.BatchNorm1d | nn.BatchNorm2d) -> Layer:
    if module.running_mean is None:
        refused = ["it has no running statistics: use track_running_stats=True"]
        return Layer("unsupported", refused=refused)
    channels = module.num_features
    params = {
        "gain": np.ones(channels) if module.weight is None else array(module.weight),
        "bias": np.zeros(channels) if module.bias is None else array(module.bias),
        "mean": array(module.running_mean),
        "var": array(module.running_var),
    }
    layer = Layer("batch_norm", {"eps": module.eps}, params)
    if not (params["var"] + module.eps > 0).all():
        layer.refused.append("its running_var plus eps is not positive")
    return layer


def _sign(module: snn.Sign) -> Layer:
    return Layer("sign")


def _rsign(module: snn.RSign) -> Layer:
    return Layer("sign", params={"bias": array(module.bias)})


def _rprelu(module: snn.RPReLU | snn.QRPReLU) -> Layer:
    names = ("shift_in", "slope", "shift_out")
    attrs = {"power_of_two": 1} if isinstance(module, snn.QRPReLU) else {}
    return Layer("rprelu", attrs, {name: array(getattr(module, name)) for name in names})


def _rleakyrelu(module: snn.RLeakyReLU) -> Layer:
    params = {name: array(getattr(module, name)) for name in ("shift_in", "shift_out")}
    params["slope"] = np.full(module.channels, module.slope)
    return Layer("rprelu", _fixed_slope(module.slope), params)


def _fixed_slope(slope: float) -> dict[str, int]:
    """The attributes of a slope that is not learned."""
    return {"power_of_two": 1} if abs(np.frexp(slope)[0]) in (0, 0.5) else {}


def _normalized_sign(module: snn.NormalizedSign) -> Layer:
    # Its positive factor changes no sign. Behind a mask layer it is one of the surrogate's
    # gradient alone; counts take it for a multiplication elsewhere.
    attrs = {} if isinstance(module.surrogate, SigmoidSign) else {"scaled": 1}
    bias = {} if module.bias is None else {"bias": array(module.bias) / module.beta}
    return Layer("sign", attrs, bias)


def _prelu(module: nn.PReLU) -> Layer:
    return Layer("prelu", params={"slope": array(module.weight)})


def _relu(module: nn.ReLU) -> Layer:
    return Layer("relu")


def _leaky_relu(module: nn.LeakyReLU) -> Layer:
    return leaky_relu(module.negative_slope)


def leaky_relu(negative_slope: float = 0.01) -> Layer:
    """A PReLU with one slope for all channels."""
    slope = np.array([negative_slope], np.float64)
    return Layer("prelu", _fixed_slope(negative_slope), {"slope": slope})


def clip(minimum: float, maximum: float) -> Layer:
    """Values below `minimum` and above `maximum` become these."""
    layer = Layer("clip", {"minimum": float(minimum), "maximum": float(maximum)})
    if not minimum <= maximum:
        layer.refused.append(f"it clips to {minimum}..{maximum}, an empty range")
    return layer


def affine(scale: float | np.ndarray = 1.0, bias: float | np.ndarray = 0.0) -> Layer:
    """x * scale + bias, each one number or one a channel."""
    arrays = np.broadcast_arrays(np.atleast_1d(scale), np.atleast_1d(bias))
    return Layer("affine", params=dict(zip(("scale", "bias"), map(np.double, arrays), strict=True)))


def _relu6(module: nn.ReLU6) -> Layer:
    return clip(0, 6)


def _hardtanh(module: nn.Hardtanh) -> Layer:
    return clip(module.min_val, module.max_val)


def _sigmoid(module: nn.Sigmoid) -> Layer:
    return Layer("sigmoid")


def hardsigmoid() -> Layer:
    """clip(x / 6 + 1 / 2, 0, 1)"""
    layer = clip(0, 1)
    layer.before.append(affine(1 / 6, 1 / 2))
    return layer


def hardswish() -> Layer:
    """x times its hard sigmoid."""
    gate = hardsigmoid()
    return Layer("mul", before=[*gate.before, clip(0, 1)])


def silu() -> Layer:
    """x times its sigmoid."""
    return Layer("mul", before=[Layer("sigmoid")])


def _hardsigmoid(module: nn.Hardsigmoid) -> Layer:
    return hardsigmoid()


def _hardswish(module: nn.Hardswish) -> Layer:
    return hardswish()


def _silu(module: nn.SiLU) -> Layer:
    return silu()


def _int4_add(module: snn.Int4Add) -> Layer:
    return Layer("int4_add", {"step": float(module.scale)})


def _max_pool(module: nn.MaxPool2d) -> Layer:
    return max_pool(
        module.kernel_size,
        module.stride,
        module.padding,
        module.dilation,
        module.ceil_mode,
        module.return_indices,
    )


def max_pool(
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Layer:
    """Max-pooling, from the arguments of `torch.nn.functional.max_pool2d`."""
    attrs = window(kernel_size, stride or kernel_size, padding)
    attrs["dilation_h"], attrs["dilation_w"] = pair(dilation)
    layer = Layer("max_pool", attrs | {"ceil_mode": int(ceil_mode)})
    if return_indices:
        layer.refused.append("return_indices=True is not supported: use return_indices=False")
    return _with_padding_checked(layer)


def _avg_pool(module: nn.AvgPool2d) -> Layer:
    return avg_pool(
        module.kernel_size,
        module.stride,
        module.padding,
        module.ceil_mode,
        module.count_include_pad,
        module.divisor_override,
    )


def avg_pool(
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Layer:
    """Average pooling, from the arguments of `torch.nn.functional.avg_pool2d`."""
    attrs = window(kernel_size, stride or kernel_size, padding)
    attrs |= {"ceil_mode": int(ceil_mode), "count_include_pad": int(count_include_pad)}
    layer = Layer("avg_pool", attrs)
    if divisor_override is not None:
        layer.refused.append("divisor_override is not supported: leave it out")
    return _with_padding_checked(layer)


def _with_padding_checked(layer: Layer) -> Layer:
    a = layer.attrs
    if any(2 * a[f"pad_{axis}"] > a[f"kernel_{axis}"] for axis in "hw"):
        layer.refused.append("its padding is more than half of its kernel: use less padding")
    return layer


def _adaptive_avg_pool(module: nn.AdaptiveAvgPool2d) -> Layer:
    return adaptive_pool(module.output_size, False)


def _adaptive_max_pool(module: nn.AdaptiveMaxPool2d) -> Layer:
    layer = adaptive_pool(module.output_size, True)
    if module.return_indices:
        layer.refused.append("return_indices=True is not supported: use return_indices=False")
    return layer


def adaptive_pool(output_size: Pair, take_max: bool) -> Layer:
    """Pooling to a number of windows a side, which must be given."""
    height, width = pair(output_size)
    if height is None or width is None:
        reason = f"output_size={tuple(pair(output_size))} is not supported: give both numbers"
        return Layer("unsupported", refused=[reason])
    if (height, width) == (1, 1) and not take_max:
        return Layer("global_avg_pool")
    return Layer("adaptive_pool", {"out_h": height, "out_w": width, "take_max": int(take_max)})


def _upsample(module: nn.Upsample) -> Layer:
    return resize(module.size, module.scale_factor, module.mode, module.align_corners)


def resize(
    size: Pair | None, scale_factor: object, mode: str, align_corners: bool | None = None
) -> Layer:
    """A resized map, from the arguments of `torch.nn.functional.interpolate`.

    `size` and `scale_factor` None: the size is that of a second input.
    """
    sizes = dict.fromkeys(("scale_h", "scale_w", "out_h", "out_w"), 0)
    refused = []
    if scale_factor is not None:
        scales = tuple(pair(scale_factor))
        if all(scale >= 1 and scale == int(scale) for scale in scales):
            sizes["scale_h"], sizes["scale_w"] = map(int, scales)
        else:
            refused.append(f"scale_factor={scale_factor} is not supported: use whole numbers")
    elif size is not None:
        sizes["out_h"], sizes["out_w"] = pair(size)
    if mode not in ("nearest", "bilinear"):
        refused.append(f'mode="{mode}" is not supported: use "nearest" or "bilinear"')
    flags = {"mode": int(mode == "bilinear"), "align_corners": int(bool(align_corners))}
    return Layer("resize", flags | sizes, refused=refused)


def _pixel_shuffle(module: nn.PixelShuffle) -> Layer:
    return Layer("pixel_shuffle", {"factor": module.upscale_factor})


def _channel_shuffle(module: nn.ChannelShuffle) -> Layer:
    return Layer("channels")


def _softmax(module: nn.Module) -> Layer:
    return Layer("unsupported", refused=[f"a program ends before it: {OUTSIDE}"])


def _flatten(module: nn.Flatten | nn.Unflatten) -> Layer:
    return Layer("flatten")


def _identity(module: nn.Module) -> Layer:
    return Layer("identity")


def _conv2d(module: nn.Conv2d | snn.ScaledStdConv2d) -> Layer:
    use = "signbit.nn.BinaryConv2d (after a Sign) or signbit.nn.QuantConv2d"
    layer = _real(module, "conv2d", _conv_attrs(module), use)
    if reason := against_padding(module):
        layer.refused.append(reason)
    return layer


def _scaled_std_conv2d(module: snn.ScaledStdConv2d) -> Layer:
    layer = _conv2d(module)
    # standardised in float64, as the float64 copies of the model do it
    layer.params["weight"] = array(copy.deepcopy(module).double().effective_weight())
    return layer


def _linear(module: nn.Linear) -> Layer:
    use = "signbit.nn.BinaryLinear (after a Sign) or signbit.nn.QuantLinear"
    return _real(module, "linear", _linear_attrs(module), use)


def _real(module: nn.Module, op: str, attrs: dict[str, int], use: str) -> Layer:
    params = {"weight": array(module.weight)}
    if module.bias is not None:
        params["bias"] = array(module.bias)
    return Layer(op, attrs, params, [f"{REAL}: use {use}; {TRAINED}"])


_READERS: dict[type[nn.Module], Callable[..., Layer]] = {
    snn.BinaryConv2d: _binary_conv2d,
    snn.BinaryLinear: _binary_linear,
    snn.QuantConv2d: _quant_conv2d,
    snn.QuantLinear: _quant_linear,
    snn.DynamicQuantConv2d: _dynamic_quant_conv2d,
    snn.DynamicQuantLinear: _dynamic_quant_linear,
    snn.Sign: _sign,
    snn.RSign: _rsign,
    snn.NormalizedSign: _normalized_sign,
    snn.RPReLU: _rprelu,
    snn.QRPReLU: _rprelu,
    snn.RLeakyReLU: _rleakyrelu,
    snn.Int4Add: _int4_add,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.PReLU: _prelu,
    nn.ReLU: _relu,
    nn.ReLU6: _relu6,
    nn.LeakyReLU: _leaky_relu,
    nn.Hardtanh: _hardtanh,
    nn.Sigmoid: _sigmoid,
    nn.Hardsigmoid: _hardsigmoid,
    nn.Hardswish: _hardswish,
    nn.SiLU: _silu,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: _adaptive_avg_pool,
    nn.AdaptiveMaxPool2d: _adaptive_max_pool,
    nn.Upsample: _upsample,
    nn.PixelShuffle: _pixel_shuffle,
    nn.ChannelShuffle: _channel_shuffle,
    nn.Flatten: _flatten,
    nn.Unflatten: _flatten,
    nn.Identity: _identity,
    nn.Dropout: _identity,
    nn.Dropout1d: _identity,
    nn.Dropout2d: _identity,
    nn.Dropout3d: _identity,
    nn.AlphaDropout: _identity,
    nn.FeatureAlphaDropout: _identity,
    nn.Softmax: _softmax,
    nn.Softmax2d: _softmax,
    nn.LogSoftmax: _softmax,
    nn.Conv2d: _conv2d,
    snn.ScaledStdConv2d: _scaled_std_conv2d,
    nn.Linear: _linear,
}

# layers that only move data: what they do is found by moving numbers through them
MOVING = (nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.ChannelShuffle)

_INSTEAD: dict[tuple[type[nn.Module], ...], str] = {
    (
        nn.CELU, nn.ELU, nn.GELU, nn.GLU, nn.Hardshrink, nn.LogSigmoid, nn.Mish, nn.RReLU, nn.SELU,
        nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh, nn.Tanhshrink, nn.Threshold,
    ): "use torch.nn.PReLU, torch.nn.Hardswish, torch.nn.SiLU or signbit.nn.RPReLU",
    (nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d, nn.LocalResponseNorm): (
        "use torch.nn.BatchNorm2d"
    ),
    (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d): (
        "use torch.nn.Upsample or torch.nn.PixelShuffle, and a convolution"
    ),
    (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Transformer): (
        "recurrent layers and attention cannot be compiled; keep them outside of the model"
    ),
    (nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d): (
        "use the padding of the layer behind it"
    ),
    (nn.PixelUnshuffle,): "use a convolution with a stride",
}  # fmt: skip


def is_leaf(module: nn.Module) -> bool:
    """Whether capture takes the module as one layer instead of looking inside it."""
    return isinstance(module, tuple(_READERS)) or type(module).__module__.startswith("signbit.nn")


def known_layers() -> str:
    """The names of the layers that can be compiled."""
    refused = {
        nn.Conv2d, snn.ScaledStdConv2d, nn.Linear, snn.DynamicQuantConv2d, snn.DynamicQuantLinear,
        nn.Softmax, nn.Softmax2d, nn.LogSoftmax,
    }  # fmt: skip
    return ", ".join(sorted(kind.__name__ for kind in set(_READERS) - refused))


def read_layer(module: nn.Module) -> Layer:
    """Read one leaf module. Never raises for a module that the compiler refuses."""
    layer = _read(module)
    if has_hooks(module):
        layer.refused.append(
            "it has forward hooks, which a program would not run: remove them, or write what they "
            "do into forward (old weight_norm and spectral_norm: torch.nn.utils.parametrizations)"
        )
    return layer


def has_hooks(module: nn.Module) -> bool:
    """Whether calling the module may do something else than its forward does."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _read(module: nn.Module) -> Layer:
    for kind in type(module).__mro__:
        if kind in _READERS:
            if type(module).forward is not kind.forward:
                reason = f"it overrides the forward of {kind.__name__}: use that class itself"
                return Layer("unsupported", refused=[reason])
            return _READERS[kind](module)
    known = (use for kinds, use in _INSTEAD.items() if isinstance(module, kinds))
    reason = next(known, f"the compiler knows {known_layers()}")
    return Layer("unsupported", refused=[f"this layer is not supported: {reason}"])
