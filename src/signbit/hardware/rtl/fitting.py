"""Per-channel functions of an integer sum as a multiplication, an addition and a shift.

A monotone map from integers to few levels is known by its *cuts*: the least integer of each level.
`(u * m + o) >> s` is the map, on every integer that can occur, exactly where it has the same cuts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_MOST_SHIFT = 40
_MOST_MULTIPLIER_BITS = 26  # with the shift and 8 bits of result well inside of int64


@dataclass(frozen=True)
class Cuts:
    """A monotone map of integers low..high to levels first..first + L, a channel.

    Attributes:
        at: int64 [C, L]: in u = v, or u = -v of a falling channel, the least u of level
            `first + 1 + j`; at most the least u of the domain where that is always reached, one
            behind its greatest where never.
        falling: bool [C].
        first: the lowest level.
        low, high: the domain of v, the same for all channels.
    """

    at: np.ndarray
    falling: np.ndarray
    first: int
    low: int
    high: int


def find_cuts(
    function: Callable[[np.ndarray], np.ndarray], channels: int, levels: range, low: int, high: int
) -> Cuts:
    """The cuts of `function`, which maps int64 [C, n] to integers in `levels`, monotonically."""
    ends = function(np.tile(np.array([[low, high]], np.int64), (channels, 1)))
    falling = ends[:, 1] < ends[:, 0]
    sign = np.where(falling, -1, 1)[:, None]
    above = np.arange(levels.start + 1, levels.stop)
    # bisection: the level is not reached at `no`, it is at `yes`
    no = np.where(falling, -high, low)[:, None] - 1 + np.zeros((1, len(above)), np.int64)
    yes = np.where(falling, -low, high)[:, None] + 1 + np.zeros((1, len(above)), np.int64)
    while (yes - no > 1).any():
        middle = (yes + no) // 2
        # of a pair that has met, the middle is `no`, perhaps outside of the domain: skipped
        open_ = yes - no > 1
        reached = function(np.clip(sign * middle, low, high)) >= above
        yes = np.where(open_ & reached, middle, yes)
        no = np.where(open_ & ~reached, middle, no)
    return Cuts(yes, falling, levels.start, low, high)


@dataclass(frozen=True)
class Affine:
    """`(v * multiplier + offset) >> shift`, with arrays int64 [C] and one shift for all."""

    multiplier: np.ndarray
    offset: np.ndarray
    shift: int


def fit(cuts: Cuts) -> Affine | None:
    """The affine map with the narrowest multipliers that has these cuts; None where there is none.

    For a multiplier m, level n begins at its cut c exactly where `c * m + o >= n << s` and
    `(c - 1) * m + o < n << s`: an interval of offsets o, whose length is a concave function of m.
    """
    for shift in range(_MOST_SHIFT + 1):
        m, least, most = _widest(cuts, shift)
        if (least <= most).all():
            return Affine(np.where(cuts.falling, -m, m), np.clip(0, least, most), shift)
    return None


def nearest(cuts: Cuts, bits: int) -> Affine:
    """The affine map with signed multipliers of `bits` bits that comes closest to these cuts."""
    best = None
    for shift in range(_MOST_SHIFT + 1):
        m, least, most = _widest(cuts, shift)
        if (m >= 1 << (bits - 1)).any():
            break
        best = Affine(np.where(cuts.falling, -m, m), (least + most) // 2, shift)
    if best is None:
        raise ValueError(f"no multiplier of {bits} bits reaches these cuts")
    return best


def _widest(cuts: Cuts, shift: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The multipliers with most room for offsets, and their least and greatest offsets, all [C].

    Where no offset serves all levels, the least is above the greatest.
    """
    levels = (cuts.first + 1 + np.arange(cuts.at.shape[1])) << shift
    least_u = np.where(cuts.falling, -cuts.high, cuts.low)[:, None]
    most_u = np.where(cuts.falling, -cuts.low, cuts.high)[:, None]
    always, never = cuts.at <= least_u, cuts.at > most_u
    reached = np.where(always, least_u, cuts.at)
    missed = np.where(never, most_u, cuts.at - 1)
    huge = np.int64(2) ** 60

    def room(m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        least = np.where(never, -huge, levels - reached * m[:, None]).max(1)
        most = np.where(always, huge, levels - 1 - missed * m[:, None]).min(1)
        return least, most

    low = np.zeros(len(cuts.at), np.int64)
    high = np.full(len(cuts.at), 1 << _MOST_MULTIPLIER_BITS, np.int64)
    while (high > low).any():
        middle = (low + high) // 2
        (a, b), (c, d) = room(middle), room(middle + 1)
        rising = (d - c) > (b - a)
        low = np.where((high > low) & rising, middle + 1, low)
        high = np.where((high > low) & ~rising, middle, high)
    # a channel of one level has room without end on one side
    least, most = room(low)
    return low, np.maximum(least, -(huge >> 12)), np.minimum(most, huge >> 12)
