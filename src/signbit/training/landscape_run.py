"""Landscapes of several networks, measured row by row into a folder.

``landscape.npz`` holds everything that was measured, and the settings that it was measured with; it
is written anew, whole, behind every row, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from signbit.data.base import ImageDataset
from signbit.errors import DataError, SignbitError
from signbit.tasks import classification
from signbit.training.files import write_atomically, write_json
from signbit.training.landscape import (
    LOSS_FLOOR,
    Grid,
    filter_directions,
    loss_row,
    moved_weights,
    quadratic_fit,
    roughness,
)
from signbit.training.output import differences, require_writable
from signbit.training.trained import TrainedModel, weights_sha256

FORMAT = "signbit-landscape-1"
FILE, SUMMARY, PICTURE = "landscape.npz", "landscape.json", "landscape.png"


@dataclass(frozen=True)
class Surface:
    """The landscape of one network.

    Attributes:
        loss: mean cross-entropy in nats, float64 [S, S]; row i is at y = positions[i], column j at
            x = positions[j]. NaN or infinite where the network's outputs are.
        accuracy: share of right predictions in [0, 1], float64 [S, S].
        positions: the values of x and of y, float64 [S].
    """

    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    positions: NDArray[np.float64]

    def summary(self) -> dict[str, Any]:
        """Loss and accuracy of the trained weights, range and smoothness; None for no number."""
        finite = self.loss[np.isfinite(self.loss)]
        middle = len(self.positions) // 2
        numbers = {
            "loss": self.loss[middle, middle],
            "accuracy": self.accuracy[middle, middle],
            "lowest_loss": finite.min() if len(finite) else math.nan,
            "highest_loss": finite.max() if len(finite) else math.nan,
            "roughness": roughness(self.loss),
            "quadratic_fit": quadratic_fit(self.loss, self.positions),
        }
        plain: dict[str, Any] = {
            name: float(number) if math.isfinite(number) else None
            for name, number in numbers.items()
        }
        return plain | {"points_not_finite": self.loss.size - len(finite)}


@dataclass(frozen=True)
class Landscape:
    """Landscapes of several networks on the same images and grid.

    Attributes:
        settings: what they were measured with, plain data.
        surfaces: one a network, by its name.
    """

    settings: dict[str, Any]
    surfaces: dict[str, Surface]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: settings, and the summary of every surface."""
        results = {name: surface.summary() for name, surface in self.surfaces.items()}
        return {"settings": self.settings, "results": results}


def measure_landscape(
    networks: Mapping[str, TrainedModel],
    dataset: ImageDataset,
    grid: Grid,
    output: str | Path,
    *,
    data: str,
    split: str,
    restart: bool = False,
    console: Console | None = None,
) -> Landscape:
    """Measure the landscapes of networks and draw them.

    Writes ``landscape.npz``, ``landscape.json`` (:meth:`Landscape.to_dict`) and ``landscape.png``.
    Rows that the folder holds already, measured with the same settings, are taken as they are. With
    the same settings the same machine finds the same bits.

    Args:
        networks: by the names that the picture gives them; their weights are the same afterwards.
        dataset: the images, the same for all networks.
        grid: size, range and seed.
        output: folder for the results.
        data, split: what the images are called; noted with the results.
        restart: forget what the folder holds.
        console: where progress goes; stderr by default.

    Raises:
        SignbitError: the folder cannot be written, or holds a landscape with other settings; a
            network has no weights to move, or some that are not finite.
        DataError: no image; images or classes that are not those of a network.
    """
    output = Path(output)
    _check(networks, dataset)
    require_writable(output)
    settings = _settings(networks, dataset, grid, data, split)
    rows = _Rows(output / FILE, settings)
    if not restart:
        rows.read()
    if not rows.done.all():
        for name in (SUMMARY, PICTURE):  # of a landscape that is not the one to come
            (output / name).unlink(missing_ok=True)
    _measure(networks, dataset, grid, rows, console or Console(stderr=True))
    surfaces = {
        name: Surface(rows.loss[index], rows.accuracy[index], grid.positions)
        for index, name in enumerate(networks)
    }
    landscape = Landscape(settings, surfaces)
    write_json(output / SUMMARY, landscape.to_dict())
    draw_landscape(landscape, output / PICTURE)
    return landscape


def draw_landscape(landscape: Landscape, path: str | Path | None = None) -> bytes:
    """The picture of a landscape: a PNG's bytes; with ``path``, also saved there."""
    from signbit.plots import plot_landscape

    panels = [
        {"name": name, "loss": surface.loss, **_captions(surface.summary())}
        for name, surface in landscape.surfaces.items()
    ]
    settings = landscape.settings
    positions = next(iter(landscape.surfaces.values())).positions
    title = (
        f"loss around the trained weights: {settings['images']} images of {settings['data']} "
        f"({settings['split']}), seed {settings['seed']}"
    )
    return plot_landscape(panels, positions, path, title, floor=LOSS_FLOOR)


def _captions(summary: Mapping[str, Any]) -> dict[str, str]:
    loss = "not finite" if summary["loss"] is None else f"{summary['loss']:.3g}"
    rough, fit = (
        "not defined" if summary[name] is None else f"{summary[name]:.3f}"
        for name in ("roughness", "quadratic_fit")
    )
    note = f"roughness {rough}, quadratic fit {fit}"
    return {"at_centre": f"loss {loss}, accuracy {summary['accuracy']:.1%}", "note": note}


def _check(networks: Mapping[str, TrainedModel], dataset: ImageDataset) -> None:
    if not networks:
        raise SignbitError("no network to measure the landscape of")
    if not len(dataset):
        raise DataError("there is no image to measure the loss on")
    _, height, width, channels = (int(size) for size in dataset.images.shape)
    first, reference = next(iter(networks.items()))
    for name, network in networks.items():
        if network.input_shape != (channels, height, width):
            raise DataError(
                f"{name} takes images of {network.input_shape}, those given are of "
                f"{(channels, height, width)}"
            )
        if network.class_names != reference.class_names:
            raise DataError(
                f"{name} was trained on other classes than {first}: a landscape compares networks "
                "on the same images"
            )
        try:
            moved_weights(network.model)
        except SignbitError as error:
            raise SignbitError(f"{name}: {error}") from error
    if dataset.labels.min() < 0 or dataset.labels.max() >= len(reference.class_names):
        raise DataError(f"there are labels outside the {len(reference.class_names)} classes")


def _settings(
    networks: Mapping[str, TrainedModel], dataset: ImageDataset, grid: Grid, data: str, split: str
) -> dict[str, Any]:
    """Everything that the numbers depend on, as it comes back from JSON."""
    digest = hashlib.sha256(np.ascontiguousarray(dataset.images).tobytes())
    digest.update(np.ascontiguousarray(dataset.labels).tobytes())
    settings = {
        "format": FORMAT,
        "data": data,
        "split": split,
        "images": len(dataset),
        "images_sha256": digest.hexdigest(),
        "size": grid.size,
        "range": grid.reach,
        "seed": grid.seed,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "networks": {
            name: {
                "weights_sha256": weights_sha256(network.model),
                "spec": network.spec,
                "mean": network.mean,
                "std": network.std,
            }
            for name, network in networks.items()
        },
    }
    return json.loads(json.dumps(settings))


class _Rows:
    """The rows that were measured, in memory and in a file.

    Attributes:
        loss, accuracy: float64 [networks, S, S], NaN where nothing was measured.
        done: bool [networks, S], which rows were.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.settings = settings
        size, count = settings["size"], len(settings["networks"])
        self.loss = np.full((count, size, size), np.nan)
        self.accuracy = np.full((count, size, size), np.nan)
        self.done = np.zeros((count, size), bool)

    def read(self) -> None:
        """Take the rows of the file, if there is one.

        Raises:
            SignbitError: it is damaged, or its settings are others.
        """
        try:
            with np.load(self.path, allow_pickle=False) as file:
                before = json.loads(str(file["settings"]))
                read = [file[name] for name in ("loss", "accuracy", "done")]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise self._damaged() from error
        if not isinstance(before, dict) or before.get("format") != FORMAT:
            raise self._damaged()
        if changed := _changes(before, self.settings):
            raise SignbitError(
                f"{self.path} was measured with other settings: {'; '.join(changed)}. Go on with "
                "the same ones, choose another --output, or begin anew with --restart"
            )
        mine = (self.loss, self.accuracy, self.done)
        if any(a.shape != b.shape or a.dtype != b.dtype for a, b in zip(read, mine, strict=True)):
            raise self._damaged()
        self.loss, self.accuracy, self.done = read

    def _damaged(self) -> SignbitError:
        return SignbitError(f"{self.path}: damaged, or no landscape; begin anew with --restart")

    def add(
        self, network: int, row: int, loss: NDArray[np.float64], accuracy: NDArray[np.float64]
    ) -> None:
        """Note a row, and write the file."""
        self.loss[network, row] = loss
        self.accuracy[network, row] = accuracy
        self.done[network, row] = True
        arrays = {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "done": self.done,
            "positions": Grid(self.settings["size"], self.settings["range"]).positions,
            "settings": np.array(json.dumps(self.settings)),
        }
        write_atomically(self.path, lambda file: np.savez(file, **arrays))


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between settings; their networks one by one only where they have the names."""
    names = [", ".join(settings["networks"]) for settings in (before, now)]
    if names[0] != names[1]:
        without = [{**settings, "networks": None} for settings in (before, now)]
        return [f"networks were {names[0]}, now {names[1]}", *differences(*without)]
    return differences(before, now)


def _measure(
    networks: Mapping[str, TrainedModel],
    dataset: ImageDataset,
    grid: Grid,
    rows: _Rows,
    console: Console,
) -> None:
    """Measure the rows that are not done."""
    positions = grid.positions
    left = int((~rows.done).sum()) * grid.size
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("landscape", total=left)
        for index, (name, network) in enumerate(networks.items()):
            if rows.done[index].all():
                continue
            progress.update(task, description=escape(name))
            # Once before anything moves: what a layer sets at its first use comes from the trained
            # weights.
            one = dataset.subset(np.arange(1))
            classification.evaluate(network.model, one, network.mean, network.std)
            directions = filter_directions(network.model, grid.seed)
            for row in np.flatnonzero(~rows.done[index]):
                measured = loss_row(
                    network.model,
                    directions,
                    positions,
                    float(positions[row]),
                    dataset,
                    network.mean,
                    network.std,
                    advance=lambda: progress.advance(task),
                )
                rows.add(index, int(row), *measured)
