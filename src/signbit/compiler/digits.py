"""Signed digits: numbers as few sums and differences of powers of two.

Integers are written in non-adjacent form, the signed-digit form with the fewest digits that are not
zero; real factors are approximated by a few signed powers of two (canonical signed digits).

Imports NumPy only.
"""

from __future__ import annotations

import functools

import numpy as np

MIN_SHIFT, MAX_SHIFT = -31, 15  # of a shift in a program
WEIGHT_LIMIT = 127


def non_adjacent(numbers: np.ndarray) -> np.ndarray:
    """Integers of any shape -> their digits int8 [..., 32] in -1, 0, +1, the lowest first."""
    rest = np.asarray(numbers).astype(np.int64)
    digits = np.zeros((*rest.shape, 32), np.int8)
    for place in range(32):
        odd = rest & 1
        digit = odd * (2 - (rest & 3))  # 1 where the rest is 1 modulo 4, -1 where it is 3
        digits[..., place] = digit
        rest = (rest - digit) >> 1
    return digits


def digit_count(numbers: np.ndarray) -> np.ndarray:
    """How many digits of each integer are not zero."""
    return (non_adjacent(numbers) != 0).sum(-1)


@functools.cache
def _nearest_weights(most: int) -> np.ndarray:
    """For each integer from -127 on: the nearest one of at most `most` digits."""
    integers = np.arange(-WEIGHT_LIMIT, WEIGHT_LIMIT + 1)
    allowed = integers[digit_count(integers) <= most]
    nearest = allowed[np.abs(integers[:, None] - allowed[None]).argmin(1)]
    return nearest.astype(np.int8)


def limit_digits(weights: np.ndarray, most: int) -> np.ndarray:
    """Integers in -127..127 -> int8 ones of at most `most` digits, the nearest."""
    return _nearest_weights(most)[np.asarray(weights, np.int64) + WEIGHT_LIMIT]


def integer_weights(weights: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Real weights [O, ...] -> int8 of at most `most` digits, and exponents e [O].

    `weights` is about `integers * 2**-e_c`, where e_c is the greatest that keeps channel c within
    127; a channel of zeros has e = 0.
    """
    peak = np.abs(weights).reshape(len(weights), -1).max(1)
    room = np.divide(WEIGHT_LIMIT, peak, out=np.ones_like(peak), where=peak > 0)
    exponents = np.floor(np.log2(room)).astype(np.int64)
    scaled = weights * np.exp2(exponents).reshape(-1, *[1] * (weights.ndim - 1))
    integers = np.clip(np.rint(scaled), -WEIGHT_LIMIT, WEIGHT_LIMIT)
    return limit_digits(integers, most), exponents


def signed_powers(factors: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors [C] as sums of at most `most` signed powers of two.

    Returns int32 `shifts` and `signs` [C, n]: factor is about `sum signs * 2**shifts`; n is as
    small as all channels allow, and unused places have the sign 0. A factor that is a power of two
    is met exactly by one; each further digit divides the error by 3 at least. Powers below
    2**-31 are left out.
    """
    rest = np.asarray(factors, np.float64).copy()
    shifts = np.zeros((len(rest), most), np.int32)
    signs = np.zeros((len(rest), most), np.int32)
    for place in range(most):
        fraction, exponent = np.frexp(np.abs(rest))  # |rest| = fraction * 2^exponent, 1/2..1
        power = np.where(fraction > 0.75, exponent, exponent - 1)  # the nearer power of two
        used = (rest != 0) & (power >= MIN_SHIFT)
        shifts[:, place] = np.where(used, np.minimum(power, MAX_SHIFT), 0)
        signs[:, place] = np.where(used, np.sign(rest), 0)
        rest -= np.where(used, np.sign(rest) * np.exp2(shifts[:, place]), 0)
    needed = max(1, int((signs != 0).sum(1).max()))
    return np.ascontiguousarray(shifts[:, :needed]), np.ascontiguousarray(signs[:, :needed])
