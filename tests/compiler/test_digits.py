"""Signed digits."""

import numpy as np
import pytest

from signbit.compiler.digits import integer_weights, non_adjacent, signed_powers


def test_non_adjacent_form_is_the_number_and_has_no_neighbours() -> None:
    numbers = np.arange(-3000, 3001)
    digits = non_adjacent(numbers)
    assert ((digits * 2.0 ** np.arange(32)).sum(-1) == numbers).all()
    assert not (digits[:, 1:] * digits[:, :-1]).any()


def test_no_sum_of_powers_is_shorter() -> None:
    # breadth first: what k signed powers of two can reach
    reach = {0: 0}
    powers = [s << k for k in range(9) for s in (1, -1)]
    for count in range(1, 5):
        for number in list(reach):
            for power in powers:
                reach.setdefault(number + power, count)
    numbers = np.arange(-127, 128)
    counts = (non_adjacent(numbers) != 0).sum(-1)
    assert counts.tolist() == [reach[n] for n in numbers.tolist()]


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_integer_weights_use_the_room_of_their_bits_a_channel(bits: int) -> None:
    weights = np.random.default_rng(0).standard_normal((5, 3, 3, 3))
    weights[1] *= 1000
    weights[2] = 0
    integers, factors = integer_weights(weights, bits)
    limit = 2 ** (bits - 1) - 1
    scale = factors.reshape(-1, 1, 1, 1)
    assert (np.abs(integers * scale - weights) <= scale / 2 + 1e-9).all()
    peaks = np.abs(integers.astype(int)).reshape(5, -1).max(1)
    assert (peaks[[0, 1, 3, 4]] >= int(0.8 * limit)).all()
    assert (peaks <= limit).all()
    assert (peaks[2], factors[2]) == (0, 1)
    shifts, signs = signed_powers(factors, 4)
    assert shifts.shape[1] <= 2
    assert ((signs * np.exp2(shifts.astype(float))).sum(1) == factors).all()


def test_signed_powers_divide_the_error_by_three_each() -> None:
    factors = np.random.default_rng(1).standard_normal(500) * 100
    bound = 1.0
    for most in range(1, 5):
        shifts, signs = signed_powers(factors, most)
        found = (signs * np.exp2(shifts.astype(float))).sum(1)
        bound /= 3
        assert (np.abs(found - factors) <= bound * np.abs(factors) + 1e-9).all()


def test_powers_of_two_need_one_digit() -> None:
    factors = np.array([4.0, -0.125, 1.0, 0.0])
    shifts, signs = signed_powers(factors, 4)
    assert shifts.shape == (4, 1)
    assert (signs[:, 0] * np.exp2(shifts[:, 0].astype(float)) == factors).all()
