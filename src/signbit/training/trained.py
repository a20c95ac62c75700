"""Trained models on disk: ``model.pt`` holds the weights and what rebuilds the network."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from signbit.errors import RecipeError, SignbitError
from signbit.training.checkpoint import save_tensors

FORMAT = "signbit-model-1"


@dataclass
class TrainedModel:
    """A model with everything that belongs to its weights.

    Attributes:
        model: the network, in evaluation mode once loaded.
        spec: ``{"name": ..., **arguments}`` of :func:`signbit.models.create_model`, or None for a
            network from elsewhere.
        class_names: one name a class.
        mean, std: normalisation that the network was trained with, in units of [0, 1].
        input_shape: (C, H, W).
        info: task, recipe and metrics of the run; plain data.
    """

    model: nn.Module
    spec: dict[str, Any] | None
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_shape: tuple[int, int, int]
    info: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write ``model.pt``, atomically; readable with ``torch.load(weights_only=True)``."""
        content = {
            "format": FORMAT,
            "spec": self.spec,
            "state_dict": {k: v.detach().cpu() for k, v in self.model.state_dict().items()},
            "class_names": list(self.class_names),
            "mean": list(self.mean),
            "std": list(self.std),
            "input_shape": list(self.input_shape),
            "info": self.info,
        }
        save_tensors(Path(path), content)


def load_trained(
    path: str | Path, build: Callable[[dict[str, Any] | None], nn.Module] | None = None
) -> TrainedModel:
    """Load a trained model, without running any code from the file.

    Args:
        path: ``model.pt``, or the folder of a run that holds one.
        build: makes the network from its spec; by default :func:`build_model`.

    Raises:
        SignbitError: missing, damaged, of another kind, or its weights do not fit the network.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.pt"
        if not path.exists():
            raise SignbitError(
                f"{path}: no such file; is that run complete? (signbit train --resume)"
            )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise SignbitError(f"{path}: no such file") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise SignbitError(f"{path}: not a readable model file") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise SignbitError(f"{path}: not a model that signbit saved")
    model = (build or build_model)(content["spec"])
    try:
        model.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise SignbitError(f"{path}: the weights do not fit the network: {error}") from error
    return TrainedModel(
        model.eval(),
        content["spec"],
        tuple(content["class_names"]),
        tuple(content["mean"]),
        tuple(content["std"]),
        tuple(content["input_shape"]),
        content["info"],
    )


def build_model(spec: dict[str, Any] | None) -> nn.Module:
    """The untrained network of a spec.

    Raises:
        SignbitError: there is no spec (a network that did not come from the registry).
        RecipeError: the registry has no such model, or the model no such argument.
    """
    from signbit.models import create_model

    if spec is None:
        raise SignbitError(
            "the network did not come from signbit.models: pass load_trained(path, build=...)"
        )
    arguments = dict(spec)
    try:
        return create_model(arguments.pop("name"), **arguments)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"model: {error}") from error


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of a model's state, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
