"""Other engines, and full-precision networks made 8-bit for them: what binary ones compete with.

Needs ``pip install "signbit[bench]"``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from signbit.errors import SignbitError

if TYPE_CHECKING:
    from signbit.runtime import Session

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


# signbit's instruction set -> what oneDNN and PyTorch call it. AVX-512 is that of CPUs with VNNI,
# which have counts of bits too, but for the oldest; matrix tiles (AMX) are left out.
_RIVAL_SETS = {
    "avx2": ("AVX2", "avx2"),
    "avx512": ("AVX512_CORE_VNNI", "avx512"),
    "avx512_popcnt": ("AVX512_CORE_VNNI", "avx512"),
}


def prepare_rivals(isa: str | None) -> None:
    """Hold oneDNN (OpenVINO, PyTorch) and PyTorch to the instruction set that signbit is held to.

    ONNX Runtime cannot be held. Where `isa` is None, everybody uses all that the CPU has.

    To be called before either runs anything, and before this thread is pinned: OpenVINO counts the
    CPUs once, when its plugin is loaded.
    """
    import openvino

    if isa in _RIVAL_SETS:
        onednn, aten = _RIVAL_SETS[isa]
        os.environ["ONEDNN_MAX_CPU_ISA"] = onednn
        os.environ["ATEN_CPU_CAPABILITY"] = aten
    openvino.Core().get_property("CPU", "INFERENCE_NUM_THREADS")


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep this thread, and threads that it starts, on as many CPUs as there are threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def export_onnx(model: Any, x: np.ndarray, path: Path, *, any_size: bool = False) -> Path:
    """A PyTorch model as fp32 ONNX, of any batch, and with `any_size` of images of any size.

    The input is called x, the outputs y, or y0, y1 ... where there are several.
    """
    import torch

    example = torch.from_numpy(np.ascontiguousarray(x[:1]))
    with torch.inference_mode():
        found = model(example)
    several = isinstance(found, (tuple, list))
    names = [f"y{i}" for i in range(len(found))] if several else ["y"]
    sizes = {2: "H", 3: "W"} if any_size else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.onnx.export(
            model,
            example,
            path,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=names,
            dynamic_axes={"x": {0: "N", **sizes}, **{name: {0: "N"} for name in names}},
        )
    return path


def quantize(
    fp32: Path, images: Iterable[np.ndarray], path: Path, signed: bool = False, **options: Any
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
    # Its own inference fails at joined maps of open sizes, and leaves files where one stands.
    quant_pre_process(fp32, prepared, skip_symbolic_shape=True)
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


class Signbit:
    """A session that writes its outputs over those of the run before, as OpenVINO does."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._out: Any = None

    def __call__(self, x: np.ndarray) -> object:
        self._out = self.session(x, out=self._out)
        return self._out


class OpenVINO:
    """A network in OpenVINO's CPU plugin, for inputs of one shape, or with None of any.

    Raises RuntimeError where OpenVINO refuses it, SignbitError where it takes other threads.
    """

    def __init__(self, model: Any, shape: Sequence[int] | None, threads: int) -> None:
        import openvino

        core = openvino.Core()
        if isinstance(model, Path):
            model = core.read_model(model)
        if shape is not None:
            model.reshape(list(shape))
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        if "ONEDNN_MAX_CPU_ISA" in os.environ or not _is_quantized(model):
            # Left alone, OpenVINO computes real numbers in bfloat16 where the CPU has it, whatever
            # oneDNN is held to: no float32 network then, and slow where held below it.
            options["INFERENCE_PRECISION_HINT"] = "f32"
        self.compiled = core.compile_model(model, "CPU", options)
        used = self.compiled.get_property("INFERENCE_NUM_THREADS")
        if used != threads:
            raise SignbitError(f"OpenVINO takes {used} threads where {threads} are to be compared")
        self._request = self.compiled.create_infer_request()

    def __call__(self, x: np.ndarray) -> object:
        return self._request.infer({0: x}, share_inputs=True, share_outputs=True)

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """Every output, copied."""
        found = self._request.infer({0: x})
        return tuple(np.array(found[output]) for output in self.compiled.outputs)

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


def _is_quantized(model: Any) -> bool:
    kinds = {node.get_type_name() for node in model.get_ops()}
    return bool(kinds & {"FakeQuantize", "FakeConvert", "QuantizeLinear", "BinaryConvolution"})


def _input_precision(node: Any) -> str:
    """Of the first input; the runtime model says it with the node that gives it."""
    return node.input_value(0).get_node().get_rt_info()["outputPrecisions"].value.split(",")[0]


class OnnxRuntime:
    """A network in ONNX Runtime's CPU provider, for batches of one size, or with None of any.

    ``size`` is that of the images, (H, W), where the file leaves it open.
    """

    def __init__(
        self,
        path: Path,
        threads: int,
        batch: int | None = 1,
        size: tuple[int, int] | None = None,
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        if batch is not None:
            options.add_free_dimension_override_by_name("N", batch)
        for name, side in zip("HW", size or (), strict=False):
            options.add_free_dimension_override_by_name(name, side)
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, x: np.ndarray) -> object:
        return self._session.run(None, {"x": x})

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """Every output."""
        return tuple(self._session.run(None, {"x": x}))


class TorchModel:
    """A model in PyTorch, on so many threads."""

    def __init__(self, model: Any, threads: int) -> None:
        self._model, self._threads = model, threads

    def __call__(self, x: np.ndarray) -> object:
        import torch

        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            return self._model(torch.from_numpy(x))
