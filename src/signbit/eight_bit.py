"""The real-valued ends of a trained binary network, brought to 8 bits."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from signbit.nn import BinaryConv2d, QuantConv2d, QuantLinear, ScaledStdConv2d
from signbit.nn.modes import evaluating


def to_8bit(model: nn.Module, example_input: Tensor) -> nn.Module:
    """A copy of a trained network whose real-valued layers have 8-bit weights and inputs.

    Convolutions and linear layers in real numbers (``torch.nn.Conv2d``, ``torch.nn.Linear``,
    :class:`~signbit.nn.ScaledStdConv2d`: stems, shortcuts, classifiers) become
    :class:`~signbit.nn.QuantConv2d` and :class:`~signbit.nn.QuantLinear` of the same weights, and
    so do binary convolutions that read real numbers (the 1x1 shortcuts of A&B BNN): their -s and +s
    are 8-bit weights without any error. Everything else stays as it is. Calibrate the copy with
    :func:`signbit.calibrate` before it is compiled.

    Args:
        model: the network; it is not changed.
        example_input: float32 [N, C, H, W], on which layers are seen to read bits or real numbers.

    Raises ValueError if nothing is there to be changed.
    """
    changed = copy.deepcopy(model)
    real = _real_layers(changed, example_input)
    if not real:
        raise ValueError("to_8bit: the model has no real-valued convolution or linear layer")
    for path in real:
        parent, _, name = path.rpartition(".")
        layer = changed.get_submodule(path)
        setattr(changed.get_submodule(parent), name, _eight_bit(layer))
    return changed


def _real_layers(model: nn.Module, example_input: Tensor) -> list[str]:
    """The paths of all layers that `to_8bit` changes, in the order of the modules."""
    reads_real: set[nn.Module] = set()

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not (inputs[0].abs() == 1).all():
            reads_real.add(layer)

    binary = [layer for layer in model.modules() if isinstance(layer, BinaryConv2d)]
    handles = [layer.register_forward_pre_hook(note) for layer in binary]
    try:
        with evaluating(model):
            model(example_input)
    finally:
        for handle in handles:
            handle.remove()
    kinds = (nn.Conv2d, nn.Linear, ScaledStdConv2d)
    return [
        path
        for path, layer in model.named_modules()
        if layer in reads_real or isinstance(layer, kinds)
    ]


@torch.no_grad()
def _eight_bit(layer: nn.Module) -> nn.Module:
    bias = layer.bias
    if isinstance(layer, nn.Linear):
        new: nn.Module = QuantLinear(layer.in_features, layer.out_features, bias=bias is not None)
        weight = layer.weight
    else:
        new = QuantConv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,
            layer.dilation, layer.groups, bias=bias is not None,
        )  # fmt: skip
        weight = _weight(layer)
    new.weight.copy_(weight)
    if bias is not None:
        new.bias.copy_(bias)
    return new.to(weight.device).train(layer.training)


def _weight(layer: nn.Module) -> Tensor:
    """The weights that a convolution works with."""
    if isinstance(layer, BinaryConv2d):
        signs, scale = layer.binary_weight()
        return signs * scale.view(-1, 1, 1, 1)
    return layer.effective_weight() if isinstance(layer, ScaledStdConv2d) else layer.weight
