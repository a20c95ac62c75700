"""Starting a network for a dense task from a trained classifier."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from signbit.errors import RecipeError
from signbit.models.backbone import Backbone
from signbit.nn.quant import QuantLayer
from signbit.training.trained import load_trained


def start_backbone(model: nn.Module, path: str | Path) -> str:
    """Give a network's backbone the weights of a classifier's stem and stages.

    Args:
        model: has one :class:`signbit.models.backbone.Backbone`.
        path: ``model.pt`` of the classifier, or the folder of its run.

    Returns:
        What was done, in words.

    Raises:
        RecipeError: the network has no backbone, or the classifier's is another: names the first
            tensor that differs.
        SignbitError: the classifier cannot be read.
    """
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, Backbone)]
    if len(found) != 1:
        raise RecipeError(
            "model.init: the network has no backbone that could start from a classifier's weights; "
            "leave it out"
        )
    name, backbone = found[0]
    trained = load_trained(path)
    given = trained.model.state_dict()
    wanted = backbone.state_dict()
    for key, tensor in wanted.items():
        if key not in given:
            raise RecipeError(
                f"model.init: {path} is a {(trained.spec or {}).get('name')} without the "
                f"backbone's {key}: take a classifier of the backbone's kind and options"
            )
        if given[key].shape != tensor.shape:
            raise RecipeError(
                f"model.init: {key} of {path} is {tuple(given[key].shape)}, the network's "
                f"{tuple(tensor.shape)}: take one of the same width, stem and channels"
            )
    for key in given:
        if key.startswith(("stem.", "stages.")) and key not in wanted:
            raise RecipeError(
                f"model.init: {path} has {key}, which the network's backbone has not: take a "
                "classifier of the same options, or give the backbone those of the classifier"
            )
    backbone.load_state_dict({key: given[key] for key in wanted})
    for layer in backbone.modules():
        if isinstance(layer, QuantLayer):
            layer.unfreeze()  # a classifier's ranges are final; the images here may be others
    return f"{name}: {len(wanted)} tensors from {path}"
