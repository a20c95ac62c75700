"""A classification network without its head, for dense tasks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from signbit.models.registry import create_model
from signbit.nn import QuantConv2d


class Backbone(nn.Module):
    """The stem and the stages of a network of the registry: images -> one map a stage.

    Input [N, in_channels, H, W]; output a tuple of maps, finest first. ``channels`` and ``strides``
    (pixels of the image a pixel of the map) have one number a map; ``bits`` says whether the maps
    are +-1 (as BiNeal's) or real. The submodules ``stem`` and ``stages`` have the names and shapes
    that they have in the classifier, so that its weights fit. ``stem_kernel``: side of the first
    convolution of ``stem="imagenet"``; one of 3x3 takes a fifth of the time of 7x7, which is half
    of a whole binary network's, but the weights of a classifier fit 7 only.

    Raises ValueError for an unknown name, an argument that the network does not have, an even
    ``stem_kernel``, or a network without stages, such as one that is a single sequence.
    """

    def __init__(
        self,
        name: str,
        *,
        stem: str = "imagenet",
        width: float = 1.0,
        in_channels: int = 3,
        stem_kernel: int = 7,
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
        _set_stem_kernel(self.stem, stem, stem_kernel)
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


def _set_stem_kernel(layers: nn.Module, stem: str, kernel: int) -> None:
    """Give the first convolution another side; what it computes has the same size."""
    if type(kernel) is not int or kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"stem_kernel must be an odd number of pixels, got {kernel!r}")
    if kernel == 7:
        return
    if stem != "imagenet":
        raise ValueError(f'stem_kernel is of stem="imagenet", not of {stem!r}; leave it out')
    kinds = (nn.Conv2d, QuantConv2d)
    path, old = next((p, m) for p, m in layers.named_modules() if isinstance(m, kinds))
    new = type(old)(
        old.in_channels, old.out_channels, kernel, stride=2, padding=kernel // 2, bias=False
    )
    if isinstance(new, nn.Conv2d):
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")  # as its network's
    layers.set_submodule(path, new)
