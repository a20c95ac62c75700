"""What this CPU can do at best, and how near a step of a network comes to it."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Mapping
from typing import Any

from signbit.runtime.library import ERROR_SIZE, check, instruction_sets, library

# key -> name in the C API
_SPEEDS = {
    "look_up_gmacs": "look_up",
    "dot_gmacs": "dot",
    "word_gmacs": "word",
    "tile_gmacs": "tile",
    "copy_l1_gbs": "copy_l1",
    "copy_l2_gbs": "copy_l2",
    "copy_l3_gbs": "copy_l3",
}
_MEMORY = {"copy_memory_gbs": "copy_memory"}  # half a second
_SIZES = {"l1_bytes": "l1_bytes", "l2_bytes": "l2_bytes", "l3_bytes": "l3_bytes"}


def measure_peaks(isa: str | None = None) -> dict[str, Any]:
    """Measure the peaks of one core: the best of several repeats of some milliseconds each.

    Takes about a second, once a process and instruction set. A peak is a maximum, so that other
    work on the machine makes it too low if anything.

    Args:
        isa: best instruction set allowed, as for `Session`; by default the environment variable
            `SIGNBIT_ISA`, else the best that the CPU has.

    Returns:
        isa; look_up_gmacs and dot_gmacs, the 10^9 multiply-accumulates a second of paired look-ups
        (binary convolutions) and of 8-bit dot products; word_gmacs and tile_gmacs, the same of
        words whose bits are counted and of matrix tiles, 0 where the instruction set has none;
        copy_l1_gbs, copy_l2_gbs, copy_l3_gbs and copy_memory_gbs, the 10^9 bytes a second, read and
        written, of a copy that stays in that cache; l1_bytes, l2_bytes, l3_bytes, the sizes of
        these caches. Both numbers of the third level are 0 where the system names none.

    Raises:
        SessionError: the instruction set is unknown, or cannot be had here.
    """
    return dict(_measured(isa or os.environ.get("SIGNBIT_ISA") or instruction_sets()[0]))


@functools.cache
def _measured(isa: str) -> dict[str, Any]:
    peaks: dict[str, Any] = {"isa": isa, **dict.fromkeys((*_SPEEDS, *_MEMORY, *_SIZES), 0)}
    # Several sweeps: what else the machine does may well last as long as one measurement.
    for names in (_SIZES, _SPEEDS, _MEMORY, _SPEEDS, _SPEEDS):
        for key, name in names.items():
            peaks[key] = max(peaks[key], measure_peak(isa, name))
    return peaks | {key: int(peaks[key]) for key in _SIZES}


def measure_peak(isa: str, name: str) -> float:
    """Measure one peak anew, by its name in the C API: `look_up`, `dot`, `copy_l1` ...

    Raises:
        SessionError: the instruction set or the name is unknown, or cannot be had here.
    """
    value, error = ctypes.c_double(), ctypes.create_string_buffer(ERROR_SIZE)
    status = library().signbit_measure_peak(
        isa.encode(), name.encode(), ctypes.byref(value), error, ERROR_SIZE
    )
    check(status, error.value, "peaks")
    return value.value


def ceiling(
    step: Mapping[str, Any], peaks: Mapping[str, Any], threads: int = 1
) -> dict[str, float | str | None]:
    """The least time that a step could take at the peaks, and how near it came.

    Each of the threads is taken to do its part of everything: of the multiply-accumulates at one
    core's peak, of the bytes at the speed of the smallest cache that holds that part.

    Args:
        step: a row of `Session.profile`: macs_b1, macs_q8, bytes, ms.
        peaks: what `measure_peaks` returns.
        threads: of the session that was profiled, at least 1.

    Returns:
        floor_ms, the largest of the three times; bound, what takes it: "look-ups", "dot products",
        "words" or "tiles" in their place where they are faster, or "memory"; level, the cache that
        holds the step's bytes: "L1", "L2", "L3" or "memory";
        share_of_peak, floor_ms / ms. Where nothing is counted, or no time was taken, they are None.
    """
    level = _level(step["bytes"] / threads, peaks)
    floors = {
        **_arithmetic(_BINARY, step["macs_b1"], peaks, threads),
        **_arithmetic(_8_BIT, step["macs_q8"], peaks, threads),
        "memory": step["bytes"] / (peaks[f"copy_{level.lower()}_gbs"] * threads * 1e6),
    }
    bound = max(floors, key=lambda name: floors[name])
    if not floors[bound] or not step["ms"]:
        return {"floor_ms": None, "bound": None, "level": None, "share_of_peak": None}
    return {
        "floor_ms": floors[bound],
        "bound": bound,
        "level": level,
        "share_of_peak": floors[bound] / step["ms"],
    }


# what a peak is called -> its key
_BINARY = {"look-ups": "look_up_gmacs", "words": "word_gmacs", "tiles": "tile_gmacs"}
_8_BIT = {"dot products": "dot_gmacs", "tiles": "tile_gmacs"}


def _arithmetic(
    ways: Mapping[str, str], macs: int, peaks: Mapping[str, Any], threads: int
) -> dict[str, float]:
    """Milliseconds that multiply-accumulates take the fastest way, by its name."""
    if not macs:
        return {}
    name = max(ways, key=lambda way: peaks[ways[way]])
    return {name: macs / (peaks[ways[name]] * threads * 1e6)}


def _level(count: float, peaks: Mapping[str, Any]) -> str:
    """The smallest cache that holds so many bytes."""
    for level in ("L1", "L2", "L3"):
        if count <= peaks[f"{level.lower()}_bytes"]:
            return level
    return "memory"
