"""What the benchmarks share: interleaved timing, other engines, calibration images, CSV files."""

from __future__ import annotations

import csv
import io
import os
import tarfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import signbit
from signbit.runtime import available_threads
from signbit.runtime.benchmark import cpu_name

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
PAUSE = 0.05  # seconds
CLOCKS = {"wall": "perf_counter", "cpu": "process_time"}  # functions of `time`

# How ResNet-18 and the like may be made 8-bit: arguments of `quantize_static` beside those of
# `quantize`. Which one OpenVINO runs fastest depends on the CPU, and capped at an instruction set
# it may refuse some.
INT8_VARIANTS: dict[str, dict[str, Any]] = {
    "all layers": {},
    "signed activations": {"signed": True},
    "float32 max-pooling": {"op_types_to_quantize": ["Conv", "Add", "Gemm", "GlobalAveragePool"]},
    "float32 sums": {
        "op_types_to_quantize": ["Conv", "Gemm", "MaxPool", "GlobalAveragePool"],
        "extra_options": {"OpTypesToExcludeOutputQuantization": ["Conv", "Gemm"]},
    },
}


def add_arguments(parser: ArgumentParser, output: str) -> None:
    """The options of every script that times engines beside each other."""
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--isa", help="cap signbit at an instruction set; with avx2, OpenVINO and PyTorch too"
    )
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: processor time of the process, for one thread on a machine that others use",
    )
    parser.add_argument("--output", type=Path, default=Path(output))


def prepare_rivals(isa: str | None) -> None:
    """Hold oneDNN (OpenVINO, PyTorch) and PyTorch to AVX2 where signbit is; ONNX Runtime cannot be.

    To be called before either runs anything, and before this thread is pinned: OpenVINO counts the
    CPUs once, when its plugin is loaded.
    """
    import openvino

    if isa == "avx2":
        os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"
        os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
    openvino.Core().get_property("CPU", "INFERENCE_NUM_THREADS")


def thread_counts(text: str) -> list[int]:
    """Numbers of threads, from "1,all"; each once."""
    parts = [available_threads() if part == "all" else int(part) for part in text.split(",")]
    return list(dict.fromkeys(parts))


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep this thread, and threads that it starts, on as many CPUs as there are threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def interleave(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    threads: int,
    clock: str,
    rivals: bool = True,
) -> dict[str, np.ndarray]:
    """Milliseconds of every run, (rounds,) for each contender; a round times each of them once.

    `rivals`: other libraries are among them, whose threads need pauses.
    """
    if clock == "cpu" and threads > 1:
        raise SystemExit("--clock cpu adds the threads' times up: it is for one thread")
    now = getattr(time, CLOCKS[clock])
    for run in runs.values():
        for _ in range(2):
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs.items())
    for turn in range(rounds):
        # Each begins a round in turn, so that none always follows the same one.
        for name, run in order[turn % len(order) :] + order[: turn % len(order)]:
            if threads > 1 and rivals:
                # The other libraries' threads spin for a while after their work, on cores that
                # the next contender needs: let them fall asleep.
                time.sleep(PAUSE)
            run()  # wakes the contender's own threads and fills the caches
            start = now()
            run()
            times[name].append((now() - start) * 1e3)
    return {name: np.array(values) for name, values in times.items()}


@dataclass(frozen=True)
class Quartiles:
    """Median of a sample, and its quartiles."""

    q1: float
    median: float
    q3: float

    @classmethod
    def of(cls, values: np.ndarray) -> Quartiles:
        return cls(*(float(q) for q in np.percentile(values, (25, 50, 75))))

    def columns(self, prefix: str) -> dict[str, float]:
        """For a CSV file."""
        return {f"{prefix}_{key}": round(value, 5) for key, value in vars(self).items()}

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.q1:.2f}-{self.q3:.2f})"


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


def export_onnx(model: Any, x: np.ndarray, path: Path) -> Path:
    """A PyTorch model as fp32 ONNX, of any batch."""
    import torch

    torch.onnx.export(
        model,
        torch.from_numpy(x[:1]),
        path,
        dynamo=False,
        opset_version=17,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "N"}, "y": {0: "N"}},
    )
    return path


def quantize(
    fp32: Path, images: np.ndarray, path: Path, signed: bool = False, **options: Any
) -> Path:
    """An ONNX file in 8 bits: static, weights per channel, calibrated on `images`."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {"x": image[None]}

    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(fp32, prepared)
    quantize_static(
        prepared,
        path,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        **options,
    )
    return path


class OpenVINO:
    """A network in OpenVINO's CPU plugin, for inputs of one shape.

    Raises RuntimeError where OpenVINO refuses it.
    """

    def __init__(self, model: Any, shape: Sequence[int], threads: int) -> None:
        import openvino

        core = openvino.Core()
        if isinstance(model, Path):
            model = core.read_model(model)
        model.reshape(list(shape))
        self.compiled = core.compile_model(
            model, "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        )
        used = self.compiled.get_property("INFERENCE_NUM_THREADS")
        if used != threads:
            raise SystemExit(f"OpenVINO takes {used} threads where {threads} are to be compared")
        self._request = self.compiled.create_infer_request()

    def __call__(self, x: np.ndarray) -> object:
        return self._request.infer({0: x}, share_inputs=True, share_outputs=True)

    def primitives(self, kind: str) -> dict[str, int]:
        """What runs the layers of a kind, as "jit_avx2_I8 u8->u8", and how many each."""
        found: dict[str, int] = {}
        for node in self.compiled.get_runtime_model().get_ordered_ops():
            info = node.get_rt_info()
            if info["layerType"].value == kind:
                name = (
                    f"{info['primitiveType'].value} "
                    f"{_input_precision(node)}->{info['outputPrecisions'].value}"
                )
                found[name] = found.get(name, 0) + 1
        return found


def _input_precision(node: Any) -> str:
    """Of the first input; the runtime model says it with the node that gives it."""
    return node.input_value(0).get_node().get_rt_info()["outputPrecisions"].value.split(",")[0]


class OnnxRuntime:
    """A network in ONNX Runtime's CPU provider, for batches of one size."""

    def __init__(self, path: Path, threads: int, batch: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.add_free_dimension_override_by_name("N", batch)
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, x: np.ndarray) -> object:
        return self._session.run(None, {"x": x})


class TorchModel:
    """A model in PyTorch, on so many threads."""

    def __init__(self, model: Any, threads: int) -> None:
        self._model, self._threads = model, threads

    def __call__(self, x: np.ndarray) -> object:
        import torch

        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            return self._model(torch.from_numpy(x))
