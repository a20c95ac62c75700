"""Integer sums and mixed precision."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """Switch autocast off for the device of ``x``.

    bfloat16 holds integers exactly only to 256 and float16 to 2048, less than the sums of a layer.
    """
    if torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()


def at_least_float32(x: Tensor) -> Tensor:
    """Return ``x``, in float32 if it has fewer bits."""
    return x.float() if torch.finfo(x.dtype).bits < 32 else x
