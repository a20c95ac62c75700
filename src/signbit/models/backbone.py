"""A classification network without its head, for dense tasks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from signbit.models.registry import create_model


class Backbone(nn.Module):
    """The stem and the stages of a network of the registry: images -> one map a stage.

    Input [N, in_channels, H, W]; output a tuple of maps, finest first. ``channels`` and ``strides``
    (pixels of the image a pixel of the map) have one number a map; ``bits`` says whether the maps
    are +-1 (as BiNeal's) or real. The submodules ``stem`` and ``stages`` have the names and shapes
    that they have in the classifier, so that its weights fit. ``options`` are the network's own.

    Raises ValueError for an unknown name, what the network refuses, or a network without stages,
    such as one that is a single sequence.
    """

    def __init__(
        self,
        name: str,
        *,
        stem: str = "imagenet",
        width: float = 1.0,
        in_channels: int = 3,
        **options: Any,
    ):
        super().__init__()
        network = create_model(
            name, num_classes=4, stem=stem, width=width, in_channels=in_channels, **options
        )
        parts = dict(network.named_children())
        if not {"stem", "stages"} <= set(parts):
            raise ValueError(f"{name} cannot be a backbone: it has no stem and stages")
        self.stem = parts["stem"]
        self.stages = parts["stages"]
        with torch.no_grad():
            self.eval()
            maps = [tuple(y.shape) for y in self(torch.zeros(1, in_channels, 64, 64))]
            self.train()
        self.channels = tuple(shape[1] for shape in maps)
        self.strides = tuple(64 // shape[2] for shape in maps)
        self.bits = name.startswith("bineal")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x)
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return tuple(found)
