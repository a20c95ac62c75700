"""INT4 operands: ladder and multiply-shift equal the model on every reachable integer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signbit.compiler.ir import INT32_MAX, INT32_MIN, Step
from signbit.compiler.passes import int4
from signbit.compiler.passes.int4 import ladder, multiply_shift
from signbit.compiler.passes.paths import evaluate
from signbit.compiler.reference import _channels, _quant4_ladder, _quant4_shift
from signbit.errors import CompileError
from tests.compiler.build import step

real = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 0.5, -0.25, 1e-9, -1e-9, 1e4, -1e4]), st.floats(-30, 30)
)


def model(gain: float, bias: float, s: float, v: int) -> int:
    """One operand in Python's own numbers; round() is half to even, as rint."""
    return max(-8, min(7, round((v * gain + bias) / s)))


@settings(max_examples=200, deadline=None)
@given(
    k=st.integers(1, 300),
    rows=st.lists(st.tuples(real, real), min_size=1, max_size=6),
    exponent=st.integers(-4, 3),
)
def test_every_integer(k: int, rows: list[tuple[float, float]], exponent: int) -> None:
    s = 2.0**exponent
    gain, bias = np.array(rows, np.float64).T
    gain = gain / np.sqrt(k)
    steps = [step("affine", scale=gain, bias=bias)]
    low, high = np.full(len(rows), -k), np.full(len(rows), k)
    integers = np.arange(-k, k + 1)
    expected = np.array(
        [[model(g, b, s, v) for v in integers.tolist()] for g, b in zip(gain, bias, strict=True)]
    )
    cuts, flip = ladder(steps, low, high, s, "layer")
    assert (np.diff(cuts, axis=1) >= 0).all()
    v = np.broadcast_to(integers, (1, len(rows), len(integers)))[..., None]
    by_ladder = Step("quant4_ladder", {"cuts": cuts, "flip": flip})
    found = _quant4_ladder(v, by_ladder, _channels(by_ladder), {}, np.float32)
    np.testing.assert_array_equal(found[0, ..., 0], expected)

    slope = np.abs(np.diff(evaluate(steps, np.array([[-k, k]], float)), axis=1)[:, 0]) / (2 * k * s)
    shifted = multiply_shift(cuts, flip, slope, low, high)
    if shifted is not None:
        shift, params = shifted
        by_shift = Step("quant4_shift", params, {"shift": shift})
        found = _quant4_shift(v, by_shift, _channels(by_shift), {}, np.float32)
        np.testing.assert_array_equal(found[0, ..., 0], expected)
        product = np.abs(params["multiplier"]) * k
        assert (product + np.abs(params["offset"])).max() <= INT32_MAX


def test_multiply_shift_serves_ordinary_layers() -> None:
    """A trained layer's gains and biases: no ladder needed, at the largest fan-in of the nets."""
    rng = np.random.default_rng(0)
    k = 9 * 512
    gain = np.exp(rng.normal(size=64) * 0.6) * rng.choice([-1, 1], 64) / np.sqrt(k)
    bias = rng.normal(size=64)
    low, high = np.full(64, -k), np.full(64, k)
    cuts, flip = ladder([step("affine", scale=gain, bias=bias)], low, high, 0.5, "layer")
    assert multiply_shift(cuts, flip, np.abs(gain) / 0.5, low, high) is not None


def test_a_bent_path_needs_the_ladder() -> None:
    steps = [step("affine", scale=[1.0], bias=[0.0]), step("prelu", slope=[0.1])]
    low, high = np.array([-60]), np.array([60])
    cuts, flip = ladder(steps, low, high, 1.0, "layer")
    assert multiply_shift(cuts, flip, np.array([1.1 / 2]), low, high) is None
    integers = np.arange(-60, 61)
    expected = np.clip(np.rint(np.where(integers >= 0, integers, 0.1 * integers)), -8, 7)
    found = -8 + (cuts[0][:, None] <= integers).sum(0)
    np.testing.assert_array_equal(found, expected)


def test_constant_operand_has_sentinel_cuts() -> None:
    steps = [step("affine", scale=[0.0, 0.0], bias=[1.0, -100.0])]
    bounds = np.array([-9, -9]), np.array([9, 9])
    cuts, flip = ladder(steps, *bounds, 0.5, "layer")
    assert cuts[0].tolist() == [INT32_MIN] * 10 + [INT32_MAX] * 5  # 1.0 / 0.5 = 2
    assert cuts[1].tolist() == [INT32_MAX] * 15  # -8
    assert flip.tolist() == [0, 0]


def test_bisection_equals_trying_every_integer(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    gain, bias = rng.normal(size=12) / 40, rng.normal(size=12)
    gain[3] = 0
    steps = [step("affine", scale=gain, bias=bias), step("prelu", slope=np.full(12, 0.5))]
    bounds = np.full(12, -500), np.full(12, 700)
    tried = ladder(steps, *bounds, 0.25, "layer")
    monkeypatch.setattr(int4, "EXHAUSTIVE", 0)
    found = ladder(steps, *bounds, 0.25, "layer")
    np.testing.assert_array_equal(tried[0], found[0])
    np.testing.assert_array_equal(tried[1], found[1])


@pytest.mark.parametrize("exhaustive", [True, False])
def test_rising_and_falling_is_refused(exhaustive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exhaustive:
        monkeypatch.setattr(int4, "EXHAUSTIVE", 0)
    steps = [step("affine", scale=[1.0, 1.0], bias=[0.0, 0.0]), step("prelu", slope=[1.0, -1.0])]
    with pytest.raises(CompileError, match=r"block\.add: channel 1 rises and falls"):
        ladder(steps, np.array([-9, -9]), np.array([9, 9]), 1.0, "block.add")
