"""The native library: found beside this file, declared to ctypes once."""

from __future__ import annotations

import ctypes
import functools
import os
from ctypes import (
    POINTER,
    c_char_p,
    c_double,
    c_int32,
    c_int64,
    c_size_t,
    c_uint64,
    c_void_p,
)
from pathlib import Path

from signbit.errors import FormatError, SessionError, SignbitError

ERROR_SIZE = 1024
OK, FORMAT, ARGUMENT, UNSUPPORTED, IO, MEMORY, INTERNAL = range(7)


class SessionOptions(ctypes.Structure):
    """`signbit_session_options` of signbit.h."""

    _fields_ = (
        ("batch", c_int32),
        ("height", c_int32),
        ("width", c_int32),
        ("threads", c_int32),
        ("isa", c_char_p),
        ("memory_limit", c_uint64),
    )


def library_path() -> Path:
    """The library's path: `SIGNBIT_LIBRARY` where set, else the one built with this package."""
    override = os.environ.get("SIGNBIT_LIBRARY")
    return Path(override) if override else Path(__file__).with_name("libsignbit.so")


@functools.cache
def library() -> ctypes.CDLL:
    """Load and declare the native library.

    Raises:
        SignbitError: it is missing or cannot be loaded.
    """
    path = library_path()
    try:
        lib = ctypes.CDLL(str(path))
    except OSError as error:
        raise SignbitError(
            f"the native library {path} cannot be loaded ({error}); reinstall signbit, "
            "or in a checkout run `make native`"
        ) from error
    error_out = (c_char_p, c_size_t)
    signatures: dict[str, tuple[type | None, tuple[type, ...]]] = {
        "signbit_version": (c_char_p, ()),
        "signbit_instruction_sets": (c_char_p, ()),
        "signbit_model_open": (c_int32, (c_char_p, POINTER(c_void_p), *error_out)),
        "signbit_model_open_memory": (
            c_int32,
            (c_char_p, c_size_t, POINTER(c_void_p), *error_out),
        ),
        "signbit_model_close": (None, (c_void_p,)),
        "signbit_model_metadata": (c_char_p, (c_void_p,)),
        "signbit_model_input_channels": (c_int32, (c_void_p,)),
        "signbit_model_accepts_pixels": (c_int32, (c_void_p,)),
        "signbit_model_input_shape": (c_int32, (c_void_p, POINTER(c_int32))),
        "signbit_model_class_count": (c_int32, (c_void_p,)),
        "signbit_model_class_name": (c_char_p, (c_void_p, c_int32)),
        "signbit_session_open": (
            c_int32,
            (c_void_p, POINTER(SessionOptions), POINTER(c_void_p), *error_out),
        ),
        "signbit_session_close": (None, (c_void_p,)),
        "signbit_session_isa": (c_char_p, (c_void_p,)),
        "signbit_session_arena_bytes": (c_size_t, (c_void_p,)),
        "signbit_session_weight_bytes": (c_size_t, (c_void_p,)),
        "signbit_session_output_count": (c_int32, (c_void_p,)),
        "signbit_session_output_shape": (
            c_int32,
            (c_void_p, c_int32, POINTER(c_int64), POINTER(c_int32)),
        ),
        "signbit_session_output_type": (c_int32, (c_void_p, c_int32, POINTER(c_int32))),
        "signbit_session_run": (
            c_int32,
            (c_void_p, c_void_p, c_int32, POINTER(c_void_p), *error_out),
        ),
        "signbit_session_set_checking": (None, (c_void_p, c_int32)),
        "signbit_session_set_profiling": (None, (c_void_p, c_int32)),
        "signbit_session_profile": (c_char_p, (c_void_p,)),
        "signbit_measure_peak": (c_int32, (c_char_p, c_char_p, POINTER(c_double), *error_out)),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    return lib


def check(status: int, message: bytes, context: str) -> None:
    """Raise what a status code of the C API stands for."""
    if status == OK:
        return
    text = f"{context}: {message.decode(errors='replace')}"
    if status == FORMAT:
        raise FormatError(text)
    if status in (ARGUMENT, UNSUPPORTED):
        raise SessionError(text)
    if status == IO:
        raise FileNotFoundError(text) if "No such file" in text else OSError(text)
    if status == MEMORY:
        raise MemoryError(text)
    raise SignbitError(text)


def instruction_sets() -> list[str]:
    """Instruction sets that this CPU and this build can run, best first."""
    return library().signbit_instruction_sets().decode().split(",")
