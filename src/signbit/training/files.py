"""Files of a run: always whole. Each is written under a temporary name, flushed and renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from signbit.errors import SignbitError


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call ``write`` with a binary file that takes the name ``path`` once it is complete."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def save_tensors(path: Path, value: Any) -> None:
    """``torch.save``, atomically."""
    write_atomically(path, lambda file: torch.save(value, file))


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, renamed into place on the same file system.

    Lightning's own way goes through the system's temporary folder; across file systems that is a
    copy, which a kill leaves half done.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_tensors(Path(path), checkpoint)


def require_writable(folder: Path) -> None:
    """Create ``folder`` and a file in it, and remove that file.

    Raises:
        SignbitError: it cannot be written, or is no folder; says so before any work is lost.
    """
    if folder.exists() and not folder.is_dir():
        raise SignbitError(f"output folder {folder}: a file of that name is in the way")
    probe = folder / ".signbit-write-test"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise SignbitError(
            f"output folder {folder}: cannot be written ({reason}); choose another with --output"
        ) from error
