"""Tensors and checkpoints in files that are always whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from signbit.training.files import write_atomically


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
