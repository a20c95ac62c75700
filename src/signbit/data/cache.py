"""Decoded images, kept between runs.

Files go to ``$SIGNBIT_CACHE``, else ``$XDG_CACHE_HOME/signbit``, else ``~/.cache/signbit``. A
file's name is the hash of what it was made from, so it is never stale; it is written under a
temporary name and renamed, so it is never half there. Where the folder cannot be written, nothing
is kept.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def cache_dir() -> Path:
    """The folder for decoded data (it may not exist yet)."""
    if chosen := os.environ.get("SIGNBIT_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "signbit"


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_images(key: str, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The uint8 array stored under ``key``; made and stored when it is not there or unreadable."""
    path = cache_dir() / "decoded" / f"{key}.npy"
    try:
        stored = np.load(path, allow_pickle=False)
        if stored.dtype == np.uint8 and stored.ndim == 4:
            return stored
    except (OSError, ValueError, EOFError):
        pass  # absent or damaged: made again below
    images = make()
    _store(path, images)
    return images


def _store(path: Path, images: NDArray[np.uint8]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, images, allow_pickle=False)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink()
            raise
    except OSError as error:
        warnings.warn(f"decoded images are not cached: {error}", stacklevel=3)
