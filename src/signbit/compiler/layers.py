"""How each layer becomes a captured node: its operation, attributes and parameters.

`read_layer` answers for one module. What it cannot take, it still describes as well as it can (a
real-valued convolution is captured as `conv2d`), together with the reasons why the compiler
refuses it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from signbit import nn as snn

UNCALIBRATED = "its input range is not known: call signbit.calibrate(model, loader), or train first"


@dataclass
class Layer:
    """A module as a captured node would hold it, and why it is refused (empty: it is not)."""

    op: str
    attrs: dict[str, int | float] = field(default_factory=dict)
    params: dict[str, np.ndarray] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)


def array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as float64."""
    return tensor.detach().cpu().double().numpy()


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _window(kernel: object, stride: object, pad: object) -> dict[str, int]:
    names = ("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_h", "pad_w")
    return dict(zip(names, (*_pair(kernel), *_pair(stride), *_pair(pad)), strict=True))


def _conv_attrs(module: nn.Module) -> dict[str, int]:
    dilation_h, dilation_w = _pair(module.dilation)
    return {
        "in_channels": module.in_channels,
        "out_channels": module.out_channels,
        **_window(module.kernel_size, module.stride, module.padding),
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


def _rprelu(module: snn.RPReLU) -> Layer:
    names = ("shift_in", "slope", "shift_out")
    return Layer("rprelu", params={name: array(getattr(module, name)) for name in names})


def _prelu(module: nn.PReLU) -> Layer:
    return Layer("prelu", params={"slope": array(module.weight)})


def _relu(module: nn.ReLU) -> Layer:
    return Layer("relu")


def _int4_add(module: snn.Int4Add) -> Layer:
    return Layer("int4_add", {"step": float(module.scale)})


def _max_pool(module: nn.MaxPool2d) -> Layer:
    layer = Layer("max_pool", _window(module.kernel_size, module.stride, module.padding))
    if module.ceil_mode:
        layer.refused.append("ceil_mode=True is not supported: use ceil_mode=False")
    if _pair(module.dilation) != (1, 1):
        layer.refused.append("dilation is not supported: use dilation=1")
    if module.return_indices:
        layer.refused.append("return_indices=True is not supported: use return_indices=False")
    return layer


def _avg_pool(module: nn.AvgPool2d) -> Layer:
    layer = Layer("avg_pool", _window(module.kernel_size, module.stride, module.padding))
    if module.ceil_mode:
        layer.refused.append("ceil_mode=True is not supported: use ceil_mode=False")
    if _pair(module.padding) != (0, 0):
        layer.refused.append("padding (and count_include_pad) is not supported: use padding=0")
    if module.divisor_override is not None:
        layer.refused.append("divisor_override is not supported: leave it out")
    return layer


def _adaptive_avg_pool(module: nn.AdaptiveAvgPool2d) -> Layer:
    layer = Layer("global_avg_pool")
    if module.output_size not in (1, (1, 1)):
        layer.refused.append(
            f"output_size={module.output_size} is not supported: use 1, or torch.nn.AvgPool2d"
        )
    return layer


def _flatten(module: nn.Flatten) -> Layer:
    layer = Layer("flatten")
    if (module.start_dim, module.end_dim) not in ((1, -1), (1, 3)):
        layer.refused.append("only Flatten(start_dim=1, end_dim=-1) is supported")
    return layer


def _identity(module: nn.Module) -> Layer:
    return Layer("identity")


def _conv2d(module: nn.Conv2d) -> Layer:
    attrs = {} if isinstance(module.padding, str) else _conv_attrs(module)
    use = "signbit.nn.BinaryConv2d (after a Sign) or signbit.nn.QuantConv2d"
    return _real(module, "conv2d" if attrs else "unsupported", attrs, use)


def _linear(module: nn.Linear) -> Layer:
    use = "signbit.nn.BinaryLinear (after a Sign) or signbit.nn.QuantLinear"
    return _real(module, "linear", _linear_attrs(module), use)


def _real(module: nn.Module, op: str, attrs: dict[str, int], use: str) -> Layer:
    params = {"weight": array(module.weight)}
    if module.bias is not None:
        params["bias"] = array(module.bias)
    return Layer(op, attrs, params, [f"it computes in real numbers: use {use}"])


_READERS: dict[type[nn.Module], Callable[..., Layer]] = {
    snn.BinaryConv2d: _binary_conv2d,
    snn.BinaryLinear: _binary_linear,
    snn.QuantConv2d: _quant_conv2d,
    snn.QuantLinear: _quant_linear,
    snn.Sign: _sign,
    snn.RSign: _rsign,
    snn.RPReLU: _rprelu,
    snn.Int4Add: _int4_add,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.PReLU: _prelu,
    nn.ReLU: _relu,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: _adaptive_avg_pool,
    nn.Flatten: _flatten,
    nn.Identity: _identity,
    nn.Dropout: _identity,
    nn.Dropout2d: _identity,
    nn.Conv2d: _conv2d,
    nn.Linear: _linear,
}

_ACTIVATIONS = (
    nn.ELU, nn.GELU, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.Mish, nn.ReLU6, nn.SELU, nn.SiLU,
    nn.Sigmoid, nn.Softplus, nn.Tanh,
)  # fmt: skip
_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d, nn.LocalResponseNorm)


def is_leaf(module: nn.Module) -> bool:
    """Whether capture takes the module as one layer instead of looking inside it."""
    return isinstance(module, tuple(_READERS)) or type(module).__module__.startswith("signbit.nn")


def known_layers() -> str:
    """The names of the layers that can be compiled."""
    return ", ".join(sorted({kind.__name__ for kind in _READERS} - {"Conv2d", "Linear"}))


def read_layer(module: nn.Module) -> Layer:
    """Read one leaf module. Never raises for a module that the compiler refuses."""
    for kind in type(module).__mro__:
        if kind in _READERS:
            if type(module).forward is not kind.forward:
                reason = f"it overrides the forward of {kind.__name__}: use that class itself"
                return Layer("unsupported", refused=[reason])
            return _READERS[kind](module)
    if isinstance(module, _ACTIVATIONS):
        reason = "use torch.nn.PReLU, torch.nn.ReLU or signbit.nn.RPReLU"
    elif isinstance(module, _NORMS):
        reason = "use torch.nn.BatchNorm2d"
    else:
        reason = f"the compiler knows {known_layers()}"
    return Layer("unsupported", refused=[f"this layer is not supported: {reason}"])
