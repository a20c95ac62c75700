"""Networks that verbs work on: trained ones from a file, untrained ones from the registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from signbit.errors import DataError, SignbitError

if TYPE_CHECKING:
    from torch import Tensor

    from signbit.data.base import Source
    from signbit.tasks.base import Task
    from signbit.training import TrainedModel

Given = TypeVar("Given", str, Path)

# Statistics of ImageNet, for networks that no data set has given any.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_network(path: Path) -> TrainedModel:
    """A trained model from ``model.pt`` or the folder of a run."""
    from signbit.training import load_trained

    return load_trained(path)


def untrained_network(
    name: str,
    *,
    width: float = 1.0,
    stem: str = "imagenet",
    classes: int = 1000,
    channels: int = 3,
    size: tuple[int, int] | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    calibrated: bool = True,
) -> TrainedModel:
    """A randomly initialised network of the registry, for timings and summaries.

    ``options`` are further arguments of the network. With ``calibrated`` its 8-bit ranges are
    frozen on random pixels: it can be compiled, but what it predicts means nothing.

    Raises:
        SignbitError: no such model, or an argument or a size that it does not take.
    """
    import torch

    from signbit.models import list_models
    from signbit.models.registry import model_arguments
    from signbit.training import TrainedModel
    from signbit.training.trained import build_model

    torch.manual_seed(seed)
    # Networks without classes, or without a choice of stems, take neither.
    optional = {"num_classes": classes, "stem": stem}
    known = model_arguments(name) if name in list_models() else None
    spec: dict[str, Any] = {
        "name": name,
        **{key: value for key, value in optional.items() if known is None or key in known},
        "width": width,
        "in_channels": channels,
        **(options or {}),
    }
    model = build_model(spec).eval()
    height, width_pixels = size or ((224, 224) if stem == "imagenet" else (32, 32))
    mean = _MEAN if channels == 3 else (0.5,) * channels
    std = _STD if channels == 3 else (0.25,) * channels
    trained = TrainedModel(
        model,
        spec,
        tuple(str(i) for i in range(classes)),
        mean,
        std,
        (channels, height, width_pixels),
        {"task": "classification", "untrained": True},
    )
    from signbit.nn import QuantLayer

    if calibrated and any(isinstance(layer, QuantLayer) for layer in model.modules()):
        from signbit.calibration import calibrate

        with _refusing_size(trained):
            calibrate(model, [example_input(trained, 4)])
    return trained


@contextmanager
def _refusing_size(trained: TrainedModel) -> Iterator[None]:
    """Within the context the network runs: what PyTorch then says is about the input's size.

    Raises:
        SignbitError: instead of PyTorch's RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        _, height, width = trained.input_shape
        raise SignbitError(
            f"--input-size: {(trained.spec or {}).get('name', 'the network')} cannot take "
            f"{height}x{width} pixels; try multiples of 32 ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def example_input(trained: TrainedModel, count: int = 1) -> Tensor:
    """Random pixels, normalised as the network wants them: float32 [count, C, H, W]."""
    import numpy as np
    import torch

    from signbit.data.normalize import normalize

    channels, height, width = trained.input_shape
    pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, channels), np.uint8)
    return torch.from_numpy(normalize(pixels, trained.mean, trained.std)).contiguous()


def network_options(words: Sequence[str]) -> dict[str, Any]:
    """Further arguments of a network from ``NAME=VALUE``, the value as in YAML.

    Raises:
        SignbitError: a word is of another form, or the value is no YAML.
    """
    import yaml

    found = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name.isidentifier() and equals):
            raise SignbitError(f"--option {word}: expected NAME=VALUE, such as stem_bits=8")
        if name in ("num_classes", "in_channels", "stem", "width"):
            raise SignbitError(f"--option {name}: there is an option of its own for it, see --help")
        try:
            found[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SignbitError(f"--option {word}: the value is not YAML") from error
    return found


def check_split(split: str) -> None:
    """Raise SignbitError unless there is such a part of a data set."""
    if split not in ("train", "val", "test"):
        raise SignbitError(f"--split {split}: expected train, val or test")


def run_name(path: Path) -> str:
    """What a network is called by its file: its run's folder, or the file itself."""
    if path.name == "model.pt":
        path = path.parent
    return path.stem if path.suffix == ".pt" else path.name


def told_apart(names: Sequence[str], given: Sequence[Given]) -> dict[str, Given]:
    """What was given by its name, or by itself where several have that name."""
    return {
        name if names.count(name) == 1 else str(each): each
        for name, each in zip(names, given, strict=True)
    }


def task_of(info: Mapping[str, Any]) -> Task:
    """The task that a network, or a compiled file, was made for.

    Raises:
        SignbitError: a newer signbit's, or none at all.
    """
    from signbit.tasks import TASKS, get_task

    name = info.get("task", "classification")
    if name not in TASKS:
        raise SignbitError(f"made for the task {name!r}; this signbit knows {', '.join(TASKS)}")
    return get_task(name)


def data_fields(info: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's ``data`` of a network with every default, and the name of its data set.

    Raises:
        SignbitError: what is written there is no such section.
    """
    from pydantic import ValidationError

    from signbit.training.recipe import DataRecipe

    try:
        # The name of the reader: the recipe may have said "auto".
        return DataRecipe(**{**data_recipe(info), "name": info.get("data", "auto")}).model_dump()
    except ValidationError as error:
        raise SignbitError(f"the recipe's data in the file: {error}") from error


def data_recipe(info: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the recipe of a network says of its data; empty where there was none."""
    return (info.get("recipe") or {}).get("data", {})


def load_data(info: Mapping[str, Any], data: Path | None) -> Any:
    """The data set that a network was trained on, as what is known of the network says.

    Args:
        info: of a trained network, or the metadata of a compiled file.
        data: where the data set lies.

    Raises:
        DataError: it is missing or broken.
    """
    return task_of(info).load(data_fields(info), data)


def require_fit(
    path: Path, source: Source, shape: tuple[int, ...], names: Sequence[str] | None
) -> None:
    """Check that a network's images and classes are those of a data set.

    Args:
        path: where the network comes from, for errors.
        source: the data set.
        shape: (C, H, W) that the network takes.
        names: its classes, if they are known.

    Raises:
        DataError: they are not.
    """
    from signbit.data.base import DataSource

    # Networks of other tasks take images of any size.
    if isinstance(source, DataSource) and tuple(shape) != source.input_shape:
        raise DataError(
            f"{path} takes images of {tuple(shape)}, {source.name} has {source.input_shape}"
        )
    if shape[0] != source.channels:
        raise DataError(
            f"{path} takes images of {shape[0]} channels, {source.name} has {source.channels}"
        )
    if names is not None and tuple(names) != source.class_names:
        raise DataError(f"{path} was trained on other classes than those of {source.name}")


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``"224"`` or ``"224x320"`` (height x width) as a pair.

    Raises:
        SignbitError: neither form.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise SignbitError(f"size {text!r}: expected pixels, as in 224 or 224x320 (height x width)")
    return int(parts[0]), int(parts[-1])
