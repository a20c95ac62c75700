"""Signed digits: numbers as few sums and differences of powers of two.

Integers are written in non-adjacent form, the signed-digit form with the fewest digits that are not
zero; real factors are approximated by a few signed powers of two (canonical signed digits).

Imports NumPy only.
"""

from __future__ import annotations

import numpy as np

MIN_SHIFT, MAX_SHIFT = -31, 15  # of a shift in a program


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


def integer_weights(
    weights: np.ndarray, bits: int, least_factor: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Real weights [O, ...] -> int8 of at most `bits` bits, and factors [O].

    `weights` is about `integers * factors`. A factor is the least of the form 2^k, 1.25 * 2^k,
    1.5 * 2^k and 1.75 * 2^k, one or two signed powers of two, that keeps its channel within
    `2^(bits - 1) - 1` and is at least `least_factor`; a channel of zeros has the factor 1 or more.
    """
    limit = (1 << bits - 1) - 1
    peak = np.abs(weights).reshape(len(weights), -1).max(1)
    least = np.where(peak > 0, np.maximum(peak / limit, least_factor), max(1.0, least_factor))
    fraction, exponent = np.frexp(least)  # fraction in 1/2..1
    factors = np.ldexp(np.ceil(fraction * 8) / 8, exponent)
    scaled = weights / factors.reshape(-1, *[1] * (weights.ndim - 1))
    return np.clip(np.rint(scaled), -limit, limit).astype(np.int8), factors


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
