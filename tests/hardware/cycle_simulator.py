"""A systolic array, cycle by cycle: operands move from register to register, one PE a cycle.

What the analytical model of signbit.hardware.systolic is held against. Nothing here computes a
number of cycles: registers are clocked until the sums that are waited for have left the array, and
the clock is read. The sums are returned too, so that a schedule that loses operands is found.

Operands are words of `lanes` numbers: a PE multiplies two words lane by lane and adds all of it.
With every word travels its step, the number of it in its stream, or NONE; PEs see when they have
had all steps by these, and sums are known by them when they leave.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

NONE = -1


def pack(values: np.ndarray, lanes: int, packing: str) -> np.ndarray:
    """[N, taps, channels] in words: [N, words, lanes], unused lanes zero."""
    n, taps, channels = values.shape
    if packing == "dense":
        values, taps, channels = values.reshape(n, 1, -1), 1, taps * channels
    words = -(-channels // lanes)
    padded = np.zeros((n, taps, words * lanes), values.dtype)
    padded[..., :channels] = values
    return padded.reshape(n, taps * words, lanes)


@dataclass
class Machine:
    """An array of R x C PEs with their registers, and a clock."""

    rows: int
    columns: int
    lanes: int
    trimmed: bool
    clock: int = 0
    folds: int = 0
    stationary: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.stationary = self._words()

    def _words(self) -> np.ndarray:
        return np.zeros((self.rows, self.columns, self.lanes), np.int64)

    def _steps(self) -> np.ndarray:
        return np.full((self.rows, self.columns), NONE)

    def product(self, dataflow: str, x: np.ndarray, w: np.ndarray, part: int | None) -> np.ndarray:
        """x [P, words, lanes] times w [M, words, lanes]: [P, M].

        `part` cuts streams of the stationary dataflows into pieces of so many steps.
        """
        if dataflow == "output_stationary":
            return self._output_stationary(x, w)
        if dataflow == "weight_stationary":
            return self._stationary(w, x, part)
        return self._stationary(x, w, part).T

    # --- sums stay in the PEs ---

    def _output_stationary(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        found = np.zeros((len(x), len(w)), np.int64)
        for i in range(0, len(x), self.rows):
            for j in range(0, len(w), self.columns):
                xs, ws = x[i : i + self.rows], w[j : j + self.columns]
                found[i : i + self.rows, j : j + self.columns] = self._accumulate(xs, ws)
        return found

    def _accumulate(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        """One fold: x comes from the left, w from above, both skewed; sums leave upwards."""
        self.folds += 1
        r, c = (len(x), len(w)) if self.trimmed else (self.rows, self.columns)
        steps = x.shape[1]
        right, down = self._words(), self._words()
        right_step, down_step = self._steps(), self._steps()
        sums = np.zeros((self.rows, self.columns), np.int64)
        last = self._steps()  # that each PE has had
        since = 0
        while (last[:r, :c] < steps - 1).any():
            right[:, 1:], down[1:] = right[:, :-1].copy(), down[:-1].copy()
            right_step[:, 1:], down_step[1:] = right_step[:, :-1].copy(), down_step[:-1].copy()
            for row in range(self.rows):
                right[row, 0], right_step[row, 0] = _enter(x, row, since - row)
            for column in range(self.columns):
                down[0, column], down_step[0, column] = _enter(w, column, since - column)
            assert (right_step == down_step).all(), "operands of different steps met"
            sums += (right * down).sum(-1)
            last = np.maximum(last, right_step)
            since += 1
        self.clock += since
        left = []
        while len(left) < r:
            left.append(sums[0].copy())
            sums[:-1], sums[-1] = sums[1:].copy(), 0
            self.clock += 1
        return np.array(left[: len(x)])[:, : len(w)]

    # --- one operand stays in the PEs ---

    def _stationary(self, held: np.ndarray, moving: np.ndarray, part: int | None) -> np.ndarray:
        """held [A, K, lanes] stays, moving [B, K, lanes] streams: [B, A], sums of K folds added."""
        found = np.zeros((len(moving), len(held)), np.int64)
        part = part or len(moving)
        for j in range(0, len(held), self.columns):
            for t in range(0, len(moving), part):
                for k in range(0, held.shape[1], self.rows):
                    block = held[j : j + self.columns, k : k + self.rows]
                    stream = moving[t : t + part, k : k + self.rows]
                    found[t : t + part, j : j + self.columns] += self._stream(block, stream)
        return found

    def _stream(self, held: np.ndarray, moving: np.ndarray) -> np.ndarray:
        """One fold: held is shifted in from above, moving comes from the left, sums go down."""
        self.folds += 1
        c, r = held.shape[:2]
        for row in reversed(range(r if self.trimmed else self.rows)):
            # what the fold before left in lower rows moves on, and meets no operand there
            self.stationary[1:] = self.stationary[:-1].copy()
            self.stationary[0] = 0
            if row < r:
                self.stationary[0, :c] = held[:, row]
            self.clock += 1
        stream = moving.swapaxes(0, 1)
        right, right_step = self._words(), self._steps()
        sums, sum_step = np.zeros((self.rows, self.columns), np.int64), self._steps()
        found = np.zeros((len(moving), self.columns), np.int64)
        left = np.zeros(self.columns, np.int64)  # sums that left each column
        awaited = c if self.trimmed else self.columns
        since = 0
        while (left[:awaited] < len(moving)).any():
            right[:, 1:], right_step[:, 1:] = right[:, :-1].copy(), right_step[:, :-1].copy()
            for row in range(self.rows):
                right[row, 0], right_step[row, 0] = _enter(stream, row, since - row)
            sums[1:], sums[0] = sums[:-1].copy(), 0
            sum_step[1:], sum_step[0] = sum_step[:-1].copy(), right_step[0]
            assert (sum_step == right_step).all(), "a sum met an operand of another step"
            sums += (right * self.stationary).sum(-1)
            leaving = np.flatnonzero(sum_step[-1] != NONE)
            found[sum_step[-1, leaving], leaving] = sums[-1, leaving]
            left[leaving] += 1
            since += 1
        self.clock += since
        return found[:, :c]


def _enter(words: np.ndarray, lane: int, step: int) -> tuple[np.ndarray | int, int]:
    """What enters the array at a lane of its edge, and its step; a lane without words has zeros."""
    if not 0 <= step < words.shape[1]:
        return 0, NONE
    return (words[lane, step] if lane < words.shape[0] else 0), step
