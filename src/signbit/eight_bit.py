"""The real-valued ends of a trained binary network, brought to 8 bits."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from signbit.compiler.capture import capture_leniently
from signbit.compiler.ir import Type
from signbit.compiler.layers import REAL, read_layer
from signbit.errors import CompileError
from signbit.nn import BinaryConv2d, QuantConv2d, QuantLinear, ScaledStdConv2d
from signbit.nn.geometry import conv_arguments

_KINDS = (nn.Conv2d, nn.Linear, ScaledStdConv2d)


def to_8bit(model: nn.Module, example_input: Tensor) -> nn.Module:
    """A copy of a trained network whose real-valued layers have 8-bit weights and inputs.

    Convolutions and linear layers in real numbers (``torch.nn.Conv2d``, ``torch.nn.Linear``,
    :class:`~signbit.nn.ScaledStdConv2d`: stems, shortcuts, classifiers) become
    :class:`~signbit.nn.QuantConv2d` and :class:`~signbit.nn.QuantLinear` of the same weights, and
    so do binary convolutions that read real numbers (the 1x1 shortcuts of A&B BNN): their -s and +s
    are 8-bit weights without any error. Which ones do is decided as the compiler decides it, on the
    traced network. Everything else stays as it is; layers and weights that are shared stay shared,
    and weights keep their dtype, device and ``requires_grad``. Calibrate the copy with
    :func:`signbit.calibrate` before it is compiled.

    Args:
        model: the network; it is not changed.
        example_input: float32 [N, C, H, W], on which the network is traced.

    Raises CompileError if the network cannot be traced or does not run on the example, if an 8-bit
    layer would do something else than one of its layers does (each is named), or if nothing is
    there to be changed.
    """
    if isinstance(model, (*_KINDS, BinaryConv2d)):
        raise CompileError(
            f"to_8bit: the model is a single {type(model).__name__}, and layers within a network "
            "are changed: give torch.nn.Sequential(layer)"
        )
    changed = copy.deepcopy(model)
    reads_real = _reading_real(changed, example_input)
    real = {
        layer: path
        for path, layer in changed.named_modules()
        if layer in reads_real or isinstance(layer, _KINDS)
    }
    if not real:
        raise CompileError(
            "to_8bit: the model has no real-valued convolution or linear layer: compile it as it is"
        )
    problems = [
        f"{path} ({type(layer).__name__}): {reason}"
        for layer, path in real.items()
        for reason in _reasons_against(layer)
    ]
    if problems:
        raise CompileError("\n  ".join(["to_8bit cannot bring to 8 bits:", *problems]))
    new = {layer: _eight_bit(layer) for layer in real}
    for path, layer in list(changed.named_modules(remove_duplicate=False)):
        if layer in new:
            changed.set_submodule(path, new[layer])
    return changed


def has_real_layers(model: nn.Module) -> bool:
    """Whether convolutions or linear layers have real-valued weights."""
    return any(isinstance(layer, _KINDS) for layer in model.modules())


def _reading_real(model: nn.Module, example_input: Tensor) -> set[nn.Module]:
    """The binary convolutions that read real numbers somewhere in the network."""
    captured = capture_leniently(model, example_input, real_layers=True)
    # Without outputs the walk ended early, and what it did not reach is not known.
    if captured.module is None or not captured.graph.outputs:
        reasons = captured.problems[:1] if captured.module is None else captured.problems
        raise CompileError("\n  ".join(["to_8bit cannot follow the model:", *map(str, reasons)]))
    return {
        model.get_submodule(node.path)
        for node in captured.graph.nodes
        if node.op == "binary_conv2d" and node.inputs[0].type != Type.B1
    }


def _reasons_against(layer: nn.Module) -> list[str]:
    """Why an 8-bit layer would do something else than `layer`."""
    reasons = [reason for reason in read_layer(layer).refused if not reason.startswith(REAL)]
    if isinstance(layer, BinaryConv2d) and layer.padding_value and any(layer.padding):
        reasons.append(
            f"it reads real numbers and pads with {layer.padding_value}, 8-bit layers with 0: use "
            "padding_value=0, or put signbit.nn.Sign before it"
        )
    return reasons


def _eight_bit(layer: nn.Module) -> nn.Module:
    biased = layer.bias is not None
    if isinstance(layer, nn.Linear):
        new: nn.Module = QuantLinear(layer.in_features, layer.out_features, bias=biased)
    else:
        new = QuantConv2d(**conv_arguments(layer), bias=biased)
    new.weight = _parameter(_weight(layer), layer.weight.requires_grad)
    if biased:
        new.bias = _parameter(layer.bias, layer.bias.requires_grad)
    return new.to(layer.weight.device).train(layer.training)


def _weight(layer: nn.Module) -> Tensor:
    """The weights that a layer works with."""
    if isinstance(layer, BinaryConv2d):
        signs, scale = layer.binary_weight()
        return signs * scale.view(-1, 1, 1, 1)
    return layer.effective_weight() if isinstance(layer, ScaledStdConv2d) else layer.weight


def _parameter(tensor: Tensor, requires_grad: bool) -> nn.Parameter:
    """The tensor itself if it is a parameter, which other layers may share."""
    if isinstance(tensor, nn.Parameter):
        return tensor
    return nn.Parameter(tensor.detach(), requires_grad)
