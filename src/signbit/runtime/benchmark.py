"""Timing a session, and what this machine offers."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from signbit.errors import SignbitError
from signbit.runtime.library import instruction_sets, library, library_path
from signbit.runtime.session import Session, available_threads


def benchmark(session: Session, x: np.ndarray, rounds: int = 30) -> dict[str, Any]:
    """Time whole runs of a session, input and output conversion included.

    Args:
        session: an open session.
        x: its input; the time is for the whole batch.
        rounds: timed runs, after three untimed ones.

    Returns:
        median_ms, p10_ms, p90_ms, min_ms, rounds, batch, threads, isa.
    """
    if rounds < 1:
        raise SignbitError(f"rounds must be at least 1, not {rounds}")
    for _ in range(3):
        session(x)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        session(x)
        times.append((time.perf_counter() - start) * 1e3)
    p10, median, p90 = np.percentile(times, (10, 50, 90))
    return {
        "median_ms": float(median),
        "p10_ms": float(p10),
        "p90_ms": float(p90),
        "min_ms": float(min(times)),
        "rounds": rounds,
        "batch": int(x.shape[0]) if x.ndim == 4 else 1,
        "threads": session.threads,
        "isa": session.isa,
    }


def cpu_name() -> str:
    """The CPU's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def doctor_info() -> dict[str, Any]:
    """What a bug report needs of the native side; a missing library is said, not raised."""
    info: dict[str, Any] = {
        "cpu": cpu_name(),
        "machine": platform.machine(),
        "threads": available_threads(),
        "library": str(library_path()),
    }
    try:
        info["version"] = library().signbit_version().decode()
        info["isa_available"] = instruction_sets()
        info["isa"] = info["isa_available"][0]
    except SignbitError as error:
        info["error"] = str(error)
    return info
