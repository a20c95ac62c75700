"""Contenders timed in turns, so that what else a machine does slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from signbit.errors import SignbitError

PAUSE = 0.05  # seconds
CLOCKS = {"wall": "perf_counter", "cpu": "process_time"}  # functions of `time`


def interleave(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    threads: int,
    clock: str,
    rivals: bool = True,
    each_round: Callable[[], object] | None = None,
) -> dict[str, np.ndarray]:
    """Milliseconds of every run, (rounds,) for each contender; a round times each of them once.

    `rivals`: other libraries are among them, whose threads need pauses. `each_round`: called once
    before the runs of a round, and not timed.
    """
    if clock == "cpu" and threads > 1:
        raise SignbitError("--clock cpu adds the threads' times up: it is for one thread")
    now = getattr(time, CLOCKS[clock])
    for run in runs.values():
        for _ in range(2):
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs.items())
    for turn in range(rounds):
        if each_round is not None:
            each_round()
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
