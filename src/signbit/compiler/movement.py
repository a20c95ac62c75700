"""Calls that only move data: views, transpositions, slices, concatenations, shuffles.

What a chain of such calls does is found by doing it: numbers that say where they come from (which
map, channel and pixel) go through the very same calls, and where they end up is recognised: the
same map, some of its channels in some order, a pixel shuffle, a flattened map. Nothing else that
moves pixels can be compiled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from signbit.compiler.ir import Value
from signbit.compiler.layers import Layer

# by their names as functions, methods and operators
_NAMES = (
    "view reshape flatten unflatten squeeze unsqueeze permute transpose swapaxes swapdims movedim "
    "moveaxis contiguous clone detach chunk split split_with_sizes tensor_split unbind getitem "
    "narrow select index_select flip roll repeat repeat_interleave view_as reshape_as expand "
    "expand_as cat concat concatenate stack hstack pixel_shuffle channel_shuffle alias "
    "native_channel_shuffle unsafe_chunk unsafe_split ravel"
)
MOVES = frozenset(_NAMES.split())
# those that put several tensors into one
JOINING = frozenset({"cat", "concat", "concatenate", "stack", "hstack"})
CONSTANT = "joins a constant to a map: only maps can be joined"
UNKNOWN = (
    "moves pixels in a way that the compiler does not know: it can flatten [N, C, H, W] to "
    "[N, C * H * W], join, choose and reorder whole channels, and shuffle pixels as "
    "torch.nn.PixelShuffle does"
)


# those that work along one axis: where that stands among their arguments, and its default
_AXES = {
    "flatten": (1, 0), "unbind": (1, 0), "flip": (1, None), "select": (1, None),
    "narrow": (1, None), "index_select": (1, None), "split": (2, 0), "chunk": (2, 0),
    "unsafe_split": (2, 0), "unsafe_chunk": (2, 0), "split_with_sizes": (2, 0),
    "tensor_split": (2, 0), "roll": (2, None),
    **dict.fromkeys(("cat", "concat", "concatenate"), (1, 0)),
}  # fmt: skip
# those whose numbers may lie beyond a map's edge
_REACHING = (
    "getitem", "narrow", "select", "roll", "split", "split_with_sizes", "tensor_split",
    "unsafe_split",
)  # fmt: skip


def is_sizeless(name: str, args: tuple, kwargs: dict, rank: int) -> bool:
    """Whether the call `name` means the same for images of every size: it works on channels.

    `rank`: the dimensions of the tensor, or the tensors, that it is given.
    """
    if name == "pixel_shuffle":
        return True
    if name == "getitem" and isinstance(args[1], tuple) and len(args[1]) == 2:
        return args[1][0] == slice(None) and isinstance(args[1][1], slice | int | list)
    if name not in _AXES:
        return False
    at, axis = _AXES[name]
    axis = args[at] if len(args) > at else axis
    for key in ("dim", "axis", "dims", "start_dim"):
        axis = kwargs.get(key, axis)
    axis = axis[0] if isinstance(axis, tuple | list) and len(axis) == 1 else axis
    if not isinstance(axis, int):
        return False
    return axis % rank >= 1 if name == "flatten" else axis % rank == 1


def reach(name: str, args: tuple, kwargs: dict) -> int:
    """The greatest number of pixels that the call `name` names; 0 if it names none."""
    if name not in _REACHING:
        return 0
    named: list[int] = []

    def note(item: object) -> None:
        if isinstance(item, tuple | list):
            for part in item:
                note(part)
        elif isinstance(item, slice):
            note((item.start, item.stop, item.step))
        elif isinstance(item, int):
            named.append(abs(item))

    note((args[1:], tuple(kwargs.values())))
    return max(named, default=0)


@dataclass
class _Base:
    """A map that numbers come from: `first` is that of its first element."""

    value: Value
    shape: tuple[int, int, int, int]
    first: int


class Movement:
    """Hands out the numbers of maps, and recognises what became of them."""

    def __init__(self) -> None:
        self._bases: list[_Base] = []

    def numbers(self, value: Value, shape: tuple[int, ...]) -> Tensor:
        """The numbers of a map that has `shape` [N, C, H, W] or [N, C] in the model."""
        base = next((b for b in self._bases if b.value is value), None)
        if base is None:
            last = self._bases[-1] if self._bases else None
            first = last.first + int(np.prod(last.shape)) if last else 0
            base = _Base(value, (shape[0], *value.shape), first)
            self._bases.append(base)
        count = int(np.prod(shape))
        # float64 holds them all, and every function that moves data takes it
        return torch.arange(base.first, base.first + count, dtype=torch.float64).reshape(shape)

    @staticmethod
    def constant(x: Tensor, name: str) -> Tensor:
        """A constant that the call `name` is given: indices as they are, else what no map holds."""
        if x.is_floating_point() or name in JOINING:
            return torch.full(x.shape, torch.nan, dtype=torch.float64)
        return x.cpu()

    @staticmethod
    def holds_constants(numbers: Tensor) -> bool:
        """Whether not all numbers come from maps."""
        return bool(numbers.isnan().any())

    def sources(self, numbers: Tensor) -> list[Value]:
        """The maps that these numbers come from, in the order in which they were handed out."""
        flat = numbers.reshape(-1).numpy()
        found = []
        for base in self._bases:
            end = base.first + int(np.prod(base.shape))
            if ((base.first <= flat) & (flat < end)).any():
                found.append(base.value)
        return found

    def recognise(self, numbers: Tensor) -> tuple[list[Value], list[Layer]] | None:
        """The maps that were moved, and the layers that move them so; None if none do."""
        if numbers.dim() not in (2, 4) or not numbers.numel() or self.holds_constants(numbers):
            return None
        maps = numbers if numbers.dim() == 4 else numbers[:, :, None, None]
        whole = self._channels(maps)
        if whole is not None:
            return whole
        base = self._base_of(maps)
        if base is None or len(maps) != base.shape[0]:
            return None
        n, _, height, width = base.shape
        if maps.shape[2:] == (1, 1) and maps.shape[1] % (height * width) == 0:
            flat = self._channels(maps.reshape(n, -1, height, width))
            return flat and (flat[0], [*flat[1], Layer("flatten")])
        factor = maps.shape[2] // height
        if factor > 1 and maps.shape[2:] == (factor * height, factor * width):
            shuffled = self._channels(F.pixel_unshuffle(maps, factor))
            layer = Layer("pixel_shuffle", {"factor": factor})
            return shuffled and (shuffled[0], [*shuffled[1], layer])
        return None

    def is_shuffled(self, numbers: object) -> bool:
        """Whether numbers are a map behind a pixel shuffle: what is moved next is that map."""
        if not isinstance(numbers, Tensor) or numbers.dim() != 4 or not numbers.numel():
            return False
        base = self._base_of(numbers)
        if base is None or numbers.shape[2:] == base.shape[2:]:
            return False
        found = self.recognise(numbers)
        return found is not None and found[1][-1].op == "pixel_shuffle"

    def is_flattened(self, numbers: Tensor) -> Value | None:
        """The map that numbers [N, C, P] are, its pixels in one row, if they are that."""
        base = self._base_of(numbers) if numbers.numel() else None
        if base is None or numbers.shape != (*base.shape[:2], base.shape[2] * base.shape[3]):
            return None
        same = torch.equal(numbers, self.numbers(base.value, base.shape).reshape(numbers.shape))
        return base.value if same else None

    def _base_of(self, numbers: Tensor) -> _Base | None:
        first = float(numbers.reshape(-1)[0])
        return next(
            (b for b in self._bases if b.first <= first < b.first + int(np.prod(b.shape))), None
        )

    def _channels(self, maps: Tensor) -> tuple[list[Value], list[Layer]] | None:
        """Numbers [N, C, H, W] as whole channels of maps of that size."""
        n, _, height, width = maps.shape
        corner = maps[0, :, 0, 0].numpy().astype(np.int64)
        pixels = np.arange(height * width).reshape(height, width)
        expected = np.zeros(maps.shape, np.float64)
        chosen: list[tuple[_Base, int]] = []
        for at in corner.tolist():
            base = self._base_of(torch.tensor([float(at)]).double())
            if base.shape[0] != n or base.shape[2:] != (height, width):
                return None
            channel, pixel = divmod(at - base.first, height * width)
            if pixel or channel >= base.shape[1]:
                return None
            images = np.arange(n)[:, None, None] * int(np.prod(base.shape[1:]))
            expected[:, len(chosen)] = at + images + pixels
            chosen.append((base, channel))
        if not np.array_equal(expected, maps.numpy()):
            return None
        bases = list(dict.fromkeys(base.first for base, _ in chosen))
        used = [next(b for b in self._bases if b.first == first) for first in bases]
        before = dict(
            zip(bases, np.cumsum([0, *(b.shape[1] for b in used)])[:-1].tolist(), strict=True)
        )
        index = np.array([before[base.first] + channel for base, channel in chosen], np.int32)
        values = [base.value for base in used]
        if len(used) == 1 and np.array_equal(index, np.arange(used[0].shape[1])):
            return values, []
        return values, [Layer("channels", params={"index": index})]
