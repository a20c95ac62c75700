"""What the benchmarks share: options, calibration images, CSV files."""

from __future__ import annotations

import csv
import io
import os
import tarfile
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import signbit
from signbit.rivals.timing import CLOCKS
from signbit.runtime import available_threads
from signbit.runtime.benchmark import cpu_name

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def add_arguments(parser: ArgumentParser, output: str) -> None:
    """The options of every script that times engines beside each other."""
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--isa",
        help="cap signbit at an instruction set; avx2, avx512 and avx512_popcnt cap OpenVINO and "
        "PyTorch too",
    )
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: processor time of the process, for one thread on a machine that others use",
    )
    parser.add_argument("--output", type=Path, default=Path(output))


def thread_counts(text: str) -> list[int]:
    """Numbers of threads, from "1,all"; each once."""
    parts = [available_threads() if part == "all" else int(part) for part in text.split(",")]
    return list(dict.fromkeys(parts))


def wide_console() -> Console:
    """A console that does not break tables where there is no terminal."""
    return Console(width=max(140, Console().width))


def geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def machine_columns(isa: str) -> dict[str, object]:
    """Columns that say where and with what a row was measured; `isa` is what signbit used."""
    return {
        "cpu": cpu_name(),
        "isa": isa,
        "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
        "signbit": signbit.__version__,
        **{name: version(name) for name in ("openvino", "onnxruntime", "torch")},
    }


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows of equal columns, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".csv.partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)


def photographs(path: Path | None) -> Iterator[Any]:
    """Images of a folder or tar file; scikit-learn's two sample photographs where there is none."""
    from PIL import Image

    if path is None:
        from sklearn.datasets import load_sample_images

        for pixels in load_sample_images().images:
            yield Image.fromarray(pixels)
    elif path.is_dir():
        for file in sorted(path.rglob("*.jpg")):
            yield Image.open(file).convert("RGB")
    else:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    data = tar.extractfile(member)
                    assert data is not None
                    yield Image.open(io.BytesIO(data.read())).convert("RGB")


def calibration_batch(path: Path | None, size: int, count: int) -> np.ndarray:
    """Normalised float32 (N, 3, size, size), centre crops."""
    images = []
    for image in photographs(path):
        scale = (size * 8 / 7) / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)))
        left, top = (image.width - size) // 2, (image.height - size) // 2
        pixels = np.asarray(image.crop((left, top, left + size, top + size)), np.float32)
        images.append(((pixels / 255 - MEAN) / STD).transpose(2, 0, 1))
        if len(images) == count:
            break
    return np.stack(images)
