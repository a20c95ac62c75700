"""A checkpoint's tensors, out of whatever wraps them, without running code from the file."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from signbit.errors import CheckpointError

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_PREFIX = "module."
# what torch.load raises on files that are no checkpoints, or cut short
_DAMAGE = (
    OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError,
    zipfile.BadZipFile,
)  # fmt: skip


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a state dict on disk, on the CPU.

    The dict may lie under ``state_dict``, ``model_state_dict``, ``model`` or ``net``; the prefix
    ``module.`` of ``torch.nn.DataParallel`` is taken off.

    Raises:
        CheckpointError: the file is missing, damaged, holds other objects than plain tensors, or no
            state dict.
    """
    content: Any = _load(path)
    if isinstance(content, dict) and content.keys() >= {"format", "spec"}:
        raise CheckpointError(f"{path}: signbit saved it: it can be compiled as it is")
    while isinstance(content, dict):
        # Tensors may lie beside it, such as the best accuracy.
        wrapped = (content[key] for key in _WRAPPERS if isinstance(content.get(key), dict))
        inner = next(wrapped, None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: no state dict in it ({_what(content)})")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path}: not a state dict: {name!r} is {_what(value)}; known wrappings are "
                f"{', '.join(_WRAPPERS)}"
            )
        if kind := _strange(value):
            raise CheckpointError(
                f"{path}: {name} is {kind}: save plain tensors, with all of their numbers"
            )
    names = [name.removeprefix(_PREFIX) for name in content]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CheckpointError(f"{path}: {twice} is there twice, with and without {_PREFIX!r}")
    return dict(zip(names, content.values(), strict=True))


def _strange(tensor: Tensor) -> str | None:
    """What a tensor is instead of an array of numbers; None if it is one."""
    if tensor.is_meta:
        return "a tensor without numbers (device meta)"
    if tensor.is_nested:
        return "a nested tensor"
    return None if tensor.layout == torch.strided else f"a sparse tensor ({tensor.layout})"


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise CheckpointError(f"{path}: a folder; give the checkpoint's file") from error
    except pickle.UnpicklingError as error:
        if any(word in str(error) for word in ("GLOBAL", "instantiate", "reduce")):
            raise CheckpointError(
                f"{path}: it holds Python objects beside tensors, which could run code and are not "
                "loaded; where the file is trusted, save its state dict alone: "
                "torch.save(model.state_dict(), path)"
            ) from error
        raise CheckpointError(_damaged(path)) from error
    except _DAMAGE as error:
        raise CheckpointError(_damaged(path)) from error


def _damaged(path: Path) -> str:
    return f"{path}: not a PyTorch checkpoint, or truncated: compare its size with the original's"


def _what(value: object) -> str:
    if isinstance(value, dict):
        names = ", ".join(map(str, list(value)[:4]))
        return f"a dict of {names}, ..." if len(value) > 4 else f"a dict of {names or 'nothing'}"
    return type(value).__name__
