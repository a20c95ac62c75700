"""Sessions: a `.signbit` file opened to be run. Needs NumPy and nothing else."""

from __future__ import annotations

import ctypes
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from signbit.errors import FormatError, SessionError
from signbit.runtime.library import ERROR_SIZE, SessionOptions, check, library
from signbit.runtime.peaks import ceiling, measure_peaks

_PIXELS, _REAL = 0, 1
# More threads than this only wait for each other; machines with more CPUs may use them all.
MAX_THREADS = 256
MAX_SIDE = 1 << 20  # of an image, in pixels: the engine's limit


def available_threads() -> int:
    """The number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Model:
    """An open file, shared by the sessions of its shapes."""

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        lib = library()
        self.handle = ctypes.c_void_p()
        error = ctypes.create_string_buffer(ERROR_SIZE)
        if isinstance(source, bytes):
            self.name = "<bytes>"
            status = lib.signbit_model_open_memory(
                source, len(source), ctypes.byref(self.handle), error, ERROR_SIZE
            )
        else:
            self.name = os.fspath(source)
            if "\0" in os.fsdecode(self.name):  # C would open what stands before it
                raise SessionError(f"{self.name!r}: a path cannot hold a zero byte")
            status = lib.signbit_model_open(
                os.fsencode(self.name), ctypes.byref(self.handle), error, ERROR_SIZE
            )
        check(status, error.value, self.name)
        self.metadata = _parse_metadata(lib.signbit_model_metadata(self.handle), self.name)
        self.channels = int(lib.signbit_model_input_channels(self.handle))
        self.accepts_pixels = bool(lib.signbit_model_accepts_pixels(self.handle))

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            library().signbit_model_close(self.handle)


def _parse_metadata(text: bytes, name: str) -> dict[str, Any]:
    """Values are JSON texts where they parse as such, plain strings otherwise."""
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise FormatError(f"{name}: header: __metadata__ is not JSON: {error}") from error
    metadata: dict[str, Any] = {}
    for key, value in raw.items():
        try:
            metadata[key] = json.loads(value)
        except (ValueError, RecursionError):
            metadata[key] = value
    return metadata


class _Open:
    """A native session for one input shape."""

    def __init__(
        self,
        model: _Model,
        shape: tuple[int, int, int],
        threads: int,
        isa: str | None,
        debug: bool,
        memory_limit: int | None,
    ) -> None:
        lib = library()
        self.model = model  # keeps the file open
        self.handle = ctypes.c_void_p()
        batch, height, width = shape
        options = SessionOptions(
            batch, height, width, threads, isa.encode() if isa else None, memory_limit or 0
        )
        error = ctypes.create_string_buffer(ERROR_SIZE)
        status = lib.signbit_session_open(
            model.handle, ctypes.byref(options), ctypes.byref(self.handle), error, ERROR_SIZE
        )
        check(status, error.value, model.name)
        lib.signbit_session_set_checking(self.handle, int(debug))
        outputs = range(lib.signbit_session_output_count(self.handle))
        self.output_shapes = [self._output_shape(i) for i in outputs]
        self.output_types = [self._output_type(i) for i in outputs]

    def _output_shape(self, index: int) -> tuple[int, ...]:
        dims, rank = (ctypes.c_int64 * 4)(), ctypes.c_int32()
        status = library().signbit_session_output_shape(
            self.handle, index, dims, ctypes.byref(rank)
        )
        check(status, b"no such output", self.model.name)
        return tuple(dims[: rank.value])

    def _output_type(self, index: int) -> np.dtype:
        kind = ctypes.c_int32()
        status = library().signbit_session_output_type(self.handle, index, ctypes.byref(kind))
        check(status, b"no such output", self.model.name)
        return np.dtype((np.float32, np.int32)[kind.value])

    def run(
        self, x: np.ndarray, kind: int, outputs: Sequence[np.ndarray] | None
    ) -> Sequence[np.ndarray]:
        if outputs is None:
            outputs = [
                np.empty(shape, dtype)
                for shape, dtype in zip(self.output_shapes, self.output_types, strict=True)
            ]
        else:
            self._check_outputs(outputs)
        # Addresses as numbers: pointers made by data_as take longer than a small network's layer.
        pointers = (ctypes.c_void_p * len(outputs))(*[y.ctypes.data for y in outputs])
        error = ctypes.create_string_buffer(ERROR_SIZE)
        status = library().signbit_session_run(
            self.handle, x.ctypes.data, kind, pointers, error, ERROR_SIZE
        )
        check(status, error.value, self.model.name)
        return outputs

    def _check_outputs(self, outputs: Sequence[np.ndarray]) -> None:
        expected = list(zip(self.output_shapes, self.output_types, strict=True))
        if not isinstance(outputs, Sequence):
            raise SessionError(
                f"{self.model.name}: out must be an array or a sequence of arrays, got "
                f"{type(outputs).__name__}"
            )
        if len(outputs) != len(expected):
            raise SessionError(
                f"{self.model.name}: out holds {len(outputs)} arrays, the network has "
                f"{len(expected)} outputs"
            )
        for index, (y, (shape, dtype)) in enumerate(zip(outputs, expected, strict=True)):
            fits = isinstance(y, np.ndarray) and y.shape == shape and y.dtype == dtype
            if not fits or not y.flags.c_contiguous or not y.flags.writeable:
                raise SessionError(
                    f"{self.model.name}: out[{index}] does not fit: expected a writeable "
                    f"C-contiguous array of {dtype} {shape}, got "
                    + (f"{y.dtype} {y.shape}" if isinstance(y, np.ndarray) else type(y).__name__)
                )
        if len({y.ctypes.data for y in outputs}) < len(outputs):
            raise SessionError(f"{self.model.name}: out holds one array for two outputs")

    def set_profiling(self, on: bool) -> None:
        library().signbit_session_set_profiling(self.handle, int(on))

    def profile(self) -> list[dict[str, Any]]:
        """The last run's times, step by step."""
        return json.loads(library().signbit_session_profile(self.handle))

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            library().signbit_session_close(self.handle)


class Session:
    """A compiled network, ready to run.

    Opens a native session for every input shape it meets and keeps the latest, so images of one
    size cost nothing beyond the first. One session serves one caller at a time: open one a thread.

    Args:
        source: path of a `.signbit` file, or its bytes.
        threads: threads that one run uses; by default all CPUs that this process may use. At most
            256, or the number of those CPUs where it is larger.
        isa: best instruction set allowed ("amx", "avx512_popcnt", "avx512", "avx2",
            "neon_dot", "neon", "scalar"); by default the environment variable `SIGNBIT_ISA`, else
            the best that the CPU has.
        debug: in every run, look for NaN and infinity in real-valued inputs and maps; an error
            names the first layer that reads or gives one, and where. Slower.
        memory_limit: most bytes that the maps, tables, packed weights and plan of one input shape
            may take together; more is a SessionError that says how many are needed. None: no limit.
            Set one for files from strangers: a small file may ask for large maps.

    Raises:
        FormatError: the file is damaged or not a signbit file.
        SessionError: `threads`, `isa` or so little memory cannot be had here.
        FileNotFoundError, OSError: the file cannot be read.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | bytes,
        threads: int | None = None,
        isa: str | None = None,
        debug: bool = False,
        memory_limit: int | None = None,
    ) -> None:
        if memory_limit is not None and not 1 <= memory_limit < 2**64:
            raise SessionError(f"memory_limit must be at least 1 byte, not {memory_limit}")
        if threads is not None and threads < 1:
            raise SessionError(f"threads must be at least 1, not {threads}")
        limit = max(MAX_THREADS, available_threads())
        if threads is not None and threads > limit:
            raise SessionError(
                f"threads must be at most {limit}, not {threads}: more than the "
                f"{available_threads()} CPUs available here only slow a run down"
            )
        self.threads = threads or available_threads()
        self._isa_cap = isa or os.environ.get("SIGNBIT_ISA") or None
        self._debug = debug
        self._memory_limit = memory_limit
        self._model = _Model(source)
        self._open: _Open | None = None
        self._shape: tuple[int, int, int] | None = None
        self._lock = threading.Lock()
        shape = self.input_shape
        self._session_for((1, shape[1], shape[2]))

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the file says of itself: task, class names, recipe, accuracy, version, hash."""
        return self._model.metadata

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) that the file was compiled for; H and W may differ from run to run."""
        text = str(self.metadata.get("input_shape", ""))
        try:
            channels, height, width = (int(part) for part in text.split(","))
            fits = channels == self._model.channels and all(
                1 <= side <= MAX_SIDE for side in (height, width)
            )
        except ValueError:
            fits = False
        if not fits:
            raise FormatError(
                f"{self._model.name}: header: __metadata__.input_shape is not C,H,W "
                f"of {self._model.channels} channels and 1 to {MAX_SIDE} pixels a side, "
                f"but {text[:80]!r}"
            )
        return channels, height, width

    @property
    def accepts_pixels(self) -> bool:
        """Whether uint8 pixels can be given: the file says how to normalise them."""
        return self._model.accepts_pixels

    @property
    def output_scales(self) -> list[float]:
        """What each output's integers count: real numbers are integers times these powers of two.

        1.0 for real-valued outputs, and where the file does not say.
        """
        types = self._current.output_types
        exponents = self.metadata.get("output_exponents")
        if exponents is None:
            return [1.0] * len(types)
        integers = isinstance(exponents, list) and all(type(e) is int for e in exponents)
        if not integers or len(exponents) != len(types) or any(abs(e) > 1000 for e in exponents):
            raise FormatError(
                f"{self._model.name}: header: __metadata__.output_exponents is not a list of one "
                f"integer for each of the {len(types)} outputs, but {str(exponents)[:80]!r}"
            )
        return [
            2.0**e if dtype == np.int32 else 1.0 for e, dtype in zip(exponents, types, strict=True)
        ]

    @property
    def isa(self) -> str:
        """The instruction set that the kernels use."""
        current = self._current  # not closed under this call by another thread's run
        return library().signbit_session_isa(current.handle).decode()

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of working memory (`arena`) and of packed weights (`weights`)."""
        lib, current = library(), self._current
        return {
            "arena": int(lib.signbit_session_arena_bytes(current.handle)),
            "weights": int(lib.signbit_session_weight_bytes(current.handle)),
        }

    @property
    def _current(self) -> _Open:
        assert self._open is not None  # opened by the constructor
        return self._open

    def _session_for(self, shape: tuple[int, int, int]) -> _Open:
        if self._open is None or self._shape != shape:
            self._open = _Open(
                self._model, shape, self.threads, self._isa_cap, self._debug, self._memory_limit
            )
            self._shape = shape
        return self._open

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Hold the session; a SessionError where another thread does."""
        if not self._lock.acquire(blocking=False):
            raise SessionError(
                f"{self._model.name}: the session is running in another thread; "
                "open one session a thread"
            )
        try:
            yield
        finally:
            self._lock.release()

    def _prepare(self, x: np.ndarray) -> tuple[np.ndarray, int, tuple[int, int, int]]:
        """Check an input; returns it contiguous, its kind, and (N, H, W)."""
        x = np.asarray(x)
        name, channels = self._model.name, self._model.channels
        expected = (
            f"uint8 pixels (N, H, W, {channels}) or (H, W, {channels}), "
            f"or normalised float32 (N, {channels}, H, W)"
        )
        if x.dtype == np.uint8:
            if not self._model.accepts_pixels:
                raise SessionError(
                    f"{name}: got uint8 pixels, but the file does not say how to normalise them; "
                    f"pass normalised float32 (N, {channels}, H, W), or compile with "
                    "`preprocessing`"
                )
            if x.ndim == 3:
                x = x[None]
            if x.ndim != 4 or x.shape[3] != channels or 0 in x.shape:
                raise SessionError(
                    f"{name}: input shape {x.shape} does not fit: expected {expected}"
                )
            return np.ascontiguousarray(x), _PIXELS, (x.shape[0], x.shape[1], x.shape[2])
        if x.dtype != np.float32:
            raise SessionError(f"{name}: input dtype {x.dtype} does not fit: expected {expected}")
        if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape:
            raise SessionError(f"{name}: input shape {x.shape} does not fit: expected {expected}")
        return np.ascontiguousarray(x), _REAL, (x.shape[0], x.shape[2], x.shape[3])

    def __call__(
        self, x: np.ndarray, out: np.ndarray | Sequence[np.ndarray] | None = None
    ) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run the network.

        Args:
            x: uint8 pixels (N, H, W, C) or (H, W, C), normalised by the file itself; or float32
                (N, C, H, W), already normalised as the PyTorch model expects.
            out: what an earlier run of this input's shape returned, to be written over and
                returned again. Large maps are faster so: the system need not find and clear
                memory for new ones. After an error it holds anything.

        Returns:
            float32 (N, classes) or (N, C, H, W), int32 where an integer program ends in integers
            (`output_scales`); a tuple where the network has several outputs.

        Raises:
            SessionError: wrong dtype or shape, of `out` too, the session is running in another
                thread, or with `debug` NaN or infinity.
        """
        x, kind, shape = self._prepare(x)
        with self._running():
            given = [out] if isinstance(out, np.ndarray) else out
            outputs = self._session_for(shape).run(x, kind, given)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def profile(self, x: np.ndarray, rounds: int = 10, peak: bool = True) -> list[dict[str, Any]]:
        """Time every step.

        Args:
            x: an input, as for a run.
            rounds: runs, after an untimed one.
            peak: compare each step with what this CPU can do at best, which is measured once a
                process and takes about a second.

        Returns:
            One dict a step: name (the layer's path), op, kernel, isa, shape (of its output), layout
            (how that lies in memory, e.g. "b1 16 planes, halo 1 (outside)"), ms (median over the
            rounds), bytes (maps and weights touched), macs_b1, macs_q8; with `peak` also floor_ms,
            bound, level and share_of_peak, as `signbit.runtime.ceiling` gives them.

        Raises:
            SessionError: as a run does; the session is held until all rounds are done.
        """
        if rounds < 1:
            raise SessionError(f"rounds must be at least 1, not {rounds}")
        x, kind, shape = self._prepare(x)
        with self._running():
            current = self._session_for(shape)
            kept = current.run(x, kind, None)  # warms caches
            current.set_profiling(True)
            try:
                samples = []
                for _ in range(rounds):
                    current.run(x, kind, kept)
                    samples.append(current.profile())
            finally:
                current.set_profiling(False)
        steps = samples[-1]
        for i, step in enumerate(steps):
            step["ms"] = float(np.median([sample[i]["ms"] for sample in samples]))
        if peak:
            peaks = measure_peaks(self.isa)
            for step in steps:
                step.update(ceiling(step, peaks, self.threads))
        return steps

    def __repr__(self) -> str:
        return f"Session({Path(self._model.name).name!r}, threads={self.threads}, isa={self.isa!r})"


def load(
    source: str | os.PathLike[str] | bytes,
    threads: int | None = None,
    isa: str | None = None,
    debug: bool = False,
    memory_limit: int | None = None,
) -> Session:
    """Open a `.signbit` file; the arguments and errors are those of `Session`."""
    return Session(source, threads=threads, isa=isa, debug=debug, memory_limit=memory_limit)
