"""Multiplications that stand for ladders and for ways to 8 bits; constants of compares."""

from __future__ import annotations

import numpy as np
import pytest

from signbit.compiler.ir import INT32_MAX, INT32_MIN, Node, Step, Type, Value
from signbit.hardware.rtl.fitting import find_cuts, fit, nearest
from signbit.hardware.rtl.stages import Compare, stages_of
from signbit.hardware.rtl.tools import count_cells
from signbit.hardware.rtl.verilog import Net, signed, signed_bits


def ladder(slopes: np.ndarray, offsets: np.ndarray):
    """clip(rint(slope * v + offset)) to 4 bits, of int64 [C, n]."""
    return lambda v: np.clip(
        np.rint(v * slopes[:, None] + offsets[:, None]), -8, 7
    ).astype(np.int64)  # fmt: skip


SLOPES = np.array([0.031, -0.2, 0.004, -1.7, 0.47, 40.0])
OFFSETS = np.array([0.3, -2.13, 5.2, 0.01, 0.023, 3.0])


def test_cuts_are_the_first_integers_of_their_levels() -> None:
    function = ladder(SLOPES, OFFSETS)
    cuts = find_cuts(function, len(SLOPES), range(-8, 8), -200, 200)
    every = np.tile(np.arange(-200, 201), (len(SLOPES), 1))
    u = np.where(cuts.falling[:, None], -every, every)
    levels = (cuts.at[:, None, :] <= u[:, :, None]).sum(2) - 8
    np.testing.assert_array_equal(levels, function(every))


def test_a_fit_equals_its_function_everywhere() -> None:
    function = ladder(SLOPES, OFFSETS)
    found = fit(find_cuts(function, len(SLOPES), range(-8, 8), -200, 200))
    assert found is not None
    every = np.tile(np.arange(-200, 201), (len(SLOPES), 1))
    scaled = every * found.multiplier[:, None] + found.offset[:, None]
    np.testing.assert_array_equal(np.clip(scaled >> found.shift, -8, 7), function(every))


def test_constant_channels_have_a_fit() -> None:
    function = ladder(np.array([0.0, 1e-9]), np.array([20.0, -20.0]))
    found = fit(find_cuts(function, 2, range(-8, 8), -9, 9))
    assert found is not None
    every = np.tile(np.arange(-9, 10), (2, 1))
    scaled = every * found.multiplier[:, None] + found.offset[:, None]
    np.testing.assert_array_equal(np.clip(scaled >> found.shift, -8, 7), function(every))


def test_jagged_levels_have_no_fit() -> None:
    table = np.array([0, 0, 0, 1, 2, 3, 3, 3, 3, 3, 3, 4])
    cuts = find_cuts(lambda v: table[v], 1, range(5), 0, 11)
    assert fit(cuts) is None
    assert np.abs(nearest(cuts, 12).multiplier).max() < 2**11


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("two_sided", [False, True])
def test_compares_equal_thresholds_on_every_sum(flip: int, two_sided: bool) -> None:
    low = np.array([INT32_MIN, -2, INT32_MIN, 5, 100, 3], np.int32)
    high = np.array([INT32_MAX, INT32_MAX, 1, 4, INT32_MAX, INT32_MAX], np.int32)
    if two_sided:
        high[5] = 5
    flips = np.full(len(low), flip, np.uint8)
    bits = Value("bits", Type.B1, (len(low), 1, 1))
    step = Step("threshold", {"low": low, "high": high, "flip": flips}, {}, bits)
    node = Node(
        "conv_b1", "layer", [], [bits], {"out_channels": len(low)},
        {"weight": np.ones((len(low), 7, 1, 1), np.int8)}, [step],
    )  # fmt: skip
    (stage,) = stages_of(node, "ladder", None)
    (compare,) = stage.writes
    assert isinstance(compare, Compare)
    assert (compare.high is not None) == two_sided
    for v in range(-7, 8):
        expected = ((low <= v) & (v <= high)) != (flips != 0)
        found = v >= compare.low
        if compare.high is not None:
            found &= v <= compare.high
        np.testing.assert_array_equal(found != compare.flip, expected)
    assert np.abs(compare.low).max() <= 7


def test_a_layer_that_keeps_nothing_is_refused() -> None:
    node = Node("conv_b1", "layer", [], [], {}, {"weight": np.ones((1, 1, 1, 1), np.int8)})
    with pytest.raises(Exception, match="layer: its sums are never stored"):
        stages_of(node, "ladder", None)


def test_an_unknown_step_is_refused_by_name() -> None:
    weight = {"weight": np.ones((1, 1, 1, 1), np.int8)}
    node = Node("conv_b1", "layer", [], [], {}, weight, [Step("sigmoid")])
    with pytest.raises(Exception, match=r"layer: the step sigmoid has no circuit.*threshold"):
        stages_of(node, "ladder", 8)


@pytest.mark.parametrize(
    ("low", "high", "bits"), [(0, 0, 1), (-1, 0, 1), (-1, 1, 2), (-128, 127, 8), (-5, 8, 5)]
)
def test_widths_hold_their_range(low: int, high: int, bits: int) -> None:
    assert signed_bits(low, high) == bits


def test_words_of_verilog() -> None:
    assert signed(-3, 4) == "4'shd"
    assert Net("x", -4, 3).to(5) == "$signed({{2{x[2]}}, x})"


def test_cells_are_counted_from_the_last_report() -> None:
    report = """
   Number of cells:                 99
     LUT2                           99

   Number of cells:                 16
     BUFG                            1
     CARRY4                          2
     DSP48E1                         1
     FDRE                            5
     LUT3                            1
     LUT6                            2
     MUXF7                           1
     RAM64M                          2
     RAMB18E1                        1

   Estimated number of LCs:          3
"""
    cells = count_cells(report)
    assert (cells.lut, cells.ff, cells.carry, cells.dsp) == (3, 5, 2, 1)
    assert (cells.lutram, cells.mux, cells.bram) == (8, 1, 0.5)
    with pytest.raises(Exception, match="STRANGE"):
        count_cells("Number of cells: 1\n     STRANGE      1\n")
