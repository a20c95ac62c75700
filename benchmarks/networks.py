"""Whole networks against the strongest 8-bit engines, one image at a time.

Times signbit's `reactnet18` and `bineal18` beside ResNet-18 in OpenVINO (int8, fp32), ONNX Runtime
(int8, fp32) and PyTorch, all on the same float32 input, interleaved: every round runs each
contender once, and the ratio to OpenVINO int8 is taken within the round. Networks have random
weights (time does not depend on them) and 8-bit ranges calibrated on photographs.

    python benchmarks/networks.py --calibration PATH    # PATH: a folder or .tar of photographs
"""

from __future__ import annotations

import argparse
import csv
import io
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

import signbit
from signbit.plots import plot_speed
from signbit.runtime import available_threads
from signbit.runtime.benchmark import cpu_name

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
PAUSE = 0.05  # seconds
BASELINE = "ResNet-18 int8, OpenVINO"


def photographs(path: Path | None) -> Iterator[Image.Image]:
    """Images of a folder or tar file; scikit-learn's two sample photographs where there is none."""
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


@dataclass(frozen=True)
class Contender:
    """A network in an engine: `run` takes the input, `bytes` is the size of its file."""

    name: str
    run: Callable[[np.ndarray], object]
    bytes: int


def signbit_contender(
    name: str, width: float, calibration: torch.Tensor, threads: int, isa: str | None, folder: Path
) -> Contender:
    torch.manual_seed(0)
    model = signbit.create_model(name, num_classes=1000, width=width)
    signbit.calibrate(model, [calibration[:4]])
    compiled = signbit.compile(model, calibration[:1])  # verified, or it raises
    file = compiled.save(folder / "model.signbit")
    session = signbit.load(file, threads=threads, isa=isa)
    label = name if width == 1 else f"{name} width {width:g}"
    return Contender(f"{label}, signbit {session.isa}", session, file.stat().st_size)


def onnx_files(calibration: np.ndarray, folder: Path) -> tuple[Path, Path]:
    """ResNet-18 as fp32 ONNX, and quantised: static, per channel, calibrated."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    torch.manual_seed(0)
    model = signbit.create_model("resnet18", num_classes=1000).eval()
    fp32, prepared, int8 = folder / "fp32.onnx", folder / "prepared.onnx", folder / "int8.onnx"
    torch.onnx.export(
        model,
        torch.from_numpy(calibration[:1]),
        fp32,
        dynamo=False,
        opset_version=17,
        input_names=["x"],
    )
    quant_pre_process(fp32, prepared)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {"x": image[None]}

    quantize_static(
        prepared,
        int8,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return fp32, int8


def rivals(fp32: Path, int8: Path, threads: int) -> Iterator[Contender]:
    import onnxruntime
    import openvino

    core = openvino.Core()
    for name, file in (("int8", int8), ("fp32", fp32)):
        compiled = core.compile_model(
            str(file), "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        )
        request = compiled.create_infer_request()
        size = file.stat().st_size
        yield Contender(f"ResNet-18 {name}, OpenVINO", lambda x, r=request: r.infer({0: x}), size)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        yield Contender(
            f"ResNet-18 {name}, ONNX Runtime", lambda x, s=session: s.run(None, {"x": x}), size
        )
    torch.manual_seed(0)
    model = signbit.create_model("resnet18", num_classes=1000).eval()

    def run_torch(x: np.ndarray) -> torch.Tensor:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return model(torch.from_numpy(x))

    yield Contender("ResNet-18 fp32, PyTorch", run_torch, fp32.stat().st_size)


def measure(contenders: list[Contender], x: np.ndarray, rounds: int) -> dict[str, np.ndarray]:
    """ms of every run, (rounds,) for each contender."""
    for contender in contenders:
        for _ in range(3):
            contender.run(x)
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            # The other libraries' threads spin for a while after their work, on cores that the next
            # contender needs: let them fall asleep, then wake the contender's own.
            time.sleep(PAUSE)
            contender.run(x)
            start = time.perf_counter()
            contender.run(x)
            times[contender.name].append((time.perf_counter() - start) * 1e3)
    return {name: np.array(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calibration", type=Path, help="folder or .tar of photographs")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", default="1,all", help="thread counts, separated by commas")
    parser.add_argument("--isa", help="cap signbit, not its rivals, at an instruction set")
    parser.add_argument("--output", type=Path, default=Path("results/networks.csv"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")

    calibration = calibration_batch(options.calibration, options.size, 32)
    x = np.repeat(calibration[:1], options.batch, axis=0)
    thread_counts = [
        available_threads() if part == "all" else int(part) for part in options.threads.split(",")
    ]
    console = Console()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        fp32, int8 = onnx_files(calibration, Path(folder))
        for threads in dict.fromkeys(thread_counts):
            images = torch.from_numpy(calibration)
            contenders = [
                signbit_contender(name, width, images, threads, options.isa, Path(folder))
                for name, width in (("reactnet18", 1.0), ("bineal18", 1.0), ("bineal18", 1.5))
            ]
            contenders += rivals(fp32, int8, threads)
            times = measure(contenders, x, options.rounds)
            size = {contender.name: contender.bytes for contender in contenders}
            table = Table(title=f"{cpu_name()}, {threads} thread(s), batch {options.batch}")
            for column in (
                "network, engine",
                "median ms",
                "quartiles",
                "times OpenVINO int8",
                "MB",
            ):
                table.add_column(column, justify="left" if column.startswith("net") else "right")
            for name, ms in times.items():
                q1, median, q3 = np.percentile(ms, (25, 50, 75))
                r1, ratio, r3 = np.percentile(times[BASELINE] / ms, (25, 50, 75))
                table.add_row(
                    name,
                    f"{median:.2f}",
                    f"{q1:.2f}-{q3:.2f}",
                    f"{ratio:.2f} ({r1:.2f}-{r3:.2f})",
                    f"{size[name] / 1e6:.1f}",
                )
                rows.append(
                    {
                        "contender": name,
                        "threads": threads,
                        "batch": options.batch,
                        "size": options.size,
                        "median_ms": round(float(median), 4),
                        "q1_ms": round(float(q1), 4),
                        "q3_ms": round(float(q3), 4),
                        "speed_to_openvino_int8": round(float(ratio), 4),
                        "ratio_q1": round(float(r1), 4),
                        "ratio_q3": round(float(r3), 4),
                        "file_bytes": size[name],
                        "rounds": options.rounds,
                        "cpu": cpu_name(),
                        "openvino": version("openvino"),
                        "onnxruntime": version("onnxruntime"),
                        "torch": version("torch"),
                        "signbit": signbit.__version__,
                    }
                )
            console.print(table)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    partial = options.output.with_suffix(".csv.partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(options.output)
    picture = options.output.with_suffix(".png")
    plot_speed(rows, picture, f"One {options.size}x{options.size} image on {cpu_name()}")
    console.print(f"wrote {options.output} and {picture}")


if __name__ == "__main__":
    main()
