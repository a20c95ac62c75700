"""Calibration: run real data through a model and freeze the input scales of its 8-bit layers.

What is said of 8-bit layers goes for those of 4 bits too.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from signbit.nn.modes import evaluating
from signbit.nn.quant import QuantLayer, observing
from signbit.quantizers import nearest_name

_METHODS = ("minmax", "percentile")
# Percentiles are taken from at most this many values of a batch, evenly spaced.
_SAMPLE = 1 << 20


class _Range:
    """The range of one layer's input, gathered batch by batch."""

    def __init__(self, percentile: float | None):
        self.percentile = percentile
        self.low = self.high = None
        self.batches = 0

    def hook(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        low, high = self._of_batch(inputs[0].detach().float())
        self.batches += 1
        if self.low is None:
            self.low, self.high = low, high
        elif self.percentile is None:
            self.low, self.high = min(self.low, low), max(self.high, high)
        else:
            self.low += (low - self.low) / self.batches
            self.high += (high - self.high) / self.batches

    def _of_batch(self, x: Tensor) -> tuple[float, float]:
        if not torch.isfinite(x).all():
            raise ValueError("calibration data gives values that are not finite")
        if self.percentile is None:
            low, high = torch.aminmax(x)
        else:
            values = x.flatten()
            values = values[:: -(-values.numel() // _SAMPLE)]
            share = self.percentile / 100.0
            low, high = torch.quantile(values, torch.tensor([1.0 - share, share], device=x.device))
        return low.item(), high.item()


def calibrate(
    model: nn.Module,
    loader: Iterable,
    batches: int | None = None,
    method: str = "minmax",
    percentile: float = 99.99,
) -> nn.Module:
    """Set and freeze the input range of every 8-bit layer from data, and return the model.

    ``loader`` yields batches: tensors [N, C, H, W], or tuples and lists whose first item is one;
    ``batches`` limits how many are used. The model runs in evaluation mode with its 8-bit layers in
    real numbers, so that calibrating twice gives the same result; training modes are restored.
    ``method``: ``minmax`` takes the extremes over all batches, ``percentile`` the mean over batches
    of each batch's (100 - percentile)th and percentile-th values, which ignores outliers and clips
    them.

    Raises ValueError for an empty loader, a layer that the data never reached (named by its path),
    an unknown method, batches below 1, a percentile outside 50..100, or values that are not finite;
    then nothing is changed.
    """
    if method not in _METHODS:
        hint = nearest_name(str(method), list(_METHODS))
        raise ValueError(
            f"unknown calibration method {method!r}{hint}; known: {', '.join(_METHODS)}"
        )
    if not 50.0 < percentile <= 100.0:
        raise ValueError(f"percentile must be above 50 and at most 100, got {percentile}")
    if batches is not None and batches < 1:
        raise ValueError(f"batches must be at least 1, got {batches}")
    layers = {path: m for path, m in model.named_modules() if isinstance(m, QuantLayer)}
    ranges = {path: _Range(percentile if method == "percentile" else None) for path in layers}
    hooks = [layer.register_forward_pre_hook(ranges[path].hook) for path, layer in layers.items()]
    try:
        with evaluating(model), observing(list(layers.values())):
            _run(model, loader, batches)
    finally:
        for hook in hooks:
            hook.remove()
    for path, seen in ranges.items():
        if not seen.batches:
            raise ValueError(
                f"calibrate: no data reached the layer {path!r}; remove it or use it in forward"
            )
    for path, layer in layers.items():
        layer.set_input_range(ranges[path].low, ranges[path].high)
        layer.freeze()
    return model


def _run(model: nn.Module, loader: Iterable, batches: int | None) -> None:
    tensor = next(model.parameters(), torch.empty(0))
    count = 0
    for batch in loader:
        x = batch[0] if isinstance(batch, tuple | list) else batch
        if not isinstance(x, Tensor):
            raise TypeError(f"calibrate: a batch must be a tensor or start with one, got {type(x)}")
        model(x.to(tensor.device))
        count += 1
        if count == batches:
            break
    if not count:
        raise ValueError("calibrate: the loader is empty; give it at least one batch")
