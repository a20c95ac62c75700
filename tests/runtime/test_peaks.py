"""Peaks of the CPU and shares of them: what is there, and the arithmetic. Never how fast."""

from __future__ import annotations

import math

import numpy as np
import pytest

from signbit.errors import SessionError
from signbit.runtime import ceiling, instruction_sets, measure_peaks

from .networks import compiled_network

PEAKS = {
    "isa": "avx2",
    "look_up_gmacs": 800.0, "dot_gmacs": 80.0, "word_gmacs": 0.0,
    "tile_gmacs": 0.0,
    "copy_l1_gbs": 200.0, "copy_l2_gbs": 100.0, "copy_l3_gbs": 50.0, "copy_memory_gbs": 10.0,
    "l1_bytes": 32_000, "l2_bytes": 512_000, "l3_bytes": 32_000_000,
}  # fmt: skip
KEYS = {"floor_ms", "bound", "level", "share_of_peak"}


def step(ms: float = 1.0, bytes_: int = 0, macs_b1: int = 0, macs_q8: int = 0) -> dict:
    return {"ms": ms, "bytes": bytes_, "macs_b1": macs_b1, "macs_q8": macs_q8}


@pytest.mark.parametrize("isa", instruction_sets())
def test_peaks_are_numbers_and_measured_once(isa: str) -> None:
    peaks = measure_peaks(isa)
    assert peaks.keys() == PEAKS.keys()
    assert peaks["isa"] == isa
    numbers = {key: value for key, value in peaks.items() if key != "isa"}
    assert all(math.isfinite(value) for value in numbers.values())
    may_be_0 = {"word_gmacs", "tile_gmacs", "copy_l3_gbs", "l3_bytes"}
    assert all(value > 0 for key, value in numbers.items() if key not in may_be_0)
    assert (numbers["word_gmacs"] > 0) == (isa in ("avx512_popcnt", "amx"))
    assert (numbers["tile_gmacs"] > 0) == (isa == "amx")
    assert (numbers["l3_bytes"] > 0) == (numbers["copy_l3_gbs"] > 0)
    peaks["look_up_gmacs"] = 0.0  # the caller's own
    assert measure_peaks(isa) == {**peaks, "look_up_gmacs": numbers["look_up_gmacs"]}


def test_peaks_of_the_instruction_set_that_a_session_would_get(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("signbit.runtime.peaks._measured", lambda isa: {"isa": isa})
    monkeypatch.delenv("SIGNBIT_ISA", raising=False)
    assert measure_peaks()["isa"] == instruction_sets()[0]
    monkeypatch.setenv("SIGNBIT_ISA", "scalar")
    assert measure_peaks()["isa"] == "scalar"
    assert measure_peaks("avx2")["isa"] == "avx2"


def test_an_unknown_instruction_set() -> None:
    with pytest.raises(SessionError, match=r'"sse9" is not known; available: .*scalar'):
        measure_peaks("sse9")


@pytest.mark.parametrize(
    ("work", "floor", "bound", "level"),
    [
        (step(macs_b1=400_000_000), 0.5, "look-ups", "L1"),
        (step(macs_q8=40_000_000, bytes_=1000), 0.5, "dot products", "L1"),
        (step(bytes_=32_000), 32e3 / 200e6, "memory", "L1"),
        (step(bytes_=32_001), 32_001 / 100e6, "memory", "L2"),
        (step(bytes_=32_000_000), 0.64, "memory", "L3"),
        (step(bytes_=40_000_000), 4.0, "memory", "memory"),
        (step(bytes_=512_000, macs_b1=400_000), 0.00512, "memory", "L2"),
    ],
)
def test_a_steps_floor_is_its_longest_part(
    work: dict, floor: float, bound: str, level: str
) -> None:
    found = ceiling({**work, "ms": 2 * floor}, PEAKS)
    assert found == {
        "floor_ms": pytest.approx(floor), "bound": bound, "level": level,
        "share_of_peak": pytest.approx(0.5),
    }  # fmt: skip


def test_each_thread_has_its_part() -> None:
    work = step(macs_b1=400_000_000, bytes_=40_000)
    assert ceiling(work, PEAKS, threads=4)["floor_ms"] == pytest.approx(0.5 / 4)
    copy = ceiling(step(bytes_=40_000), PEAKS, threads=2)  # 20,000 each fit the first level
    assert (copy["level"], copy["floor_ms"]) == ("L1", pytest.approx(20e3 / 200e6))


def test_words_do_binary_work_where_they_are_faster() -> None:
    peaks = {**PEAKS, "word_gmacs": 1000.0, "tile_gmacs": 900.0}
    binary = ceiling(step(macs_b1=400_000_000), peaks)
    assert (binary["bound"], binary["floor_ms"]) == ("words", pytest.approx(0.4))
    q8 = ceiling(step(macs_q8=400_000_000), peaks)
    assert q8["bound"] == "tiles"


def test_matrix_tiles_do_both_kinds_of_work_where_they_are_faster() -> None:
    peaks = {**PEAKS, "tile_gmacs": 400.0}
    binary = ceiling(step(macs_b1=400_000_000), peaks)
    assert (binary["bound"], binary["floor_ms"]) == ("look-ups", pytest.approx(0.5))
    q8 = ceiling(step(macs_q8=400_000_000), peaks)
    assert (q8["bound"], q8["floor_ms"]) == ("tiles", pytest.approx(1.0))


@pytest.mark.parametrize("work", [step(), step(ms=0.0, bytes_=5)], ids=["no work", "no time"])
def test_nothing_to_compare(work: dict) -> None:
    assert ceiling(work, PEAKS) == dict.fromkeys(KEYS)


def test_without_a_third_level_more_bytes_go_to_memory() -> None:
    peaks = {**PEAKS, "l3_bytes": 0, "copy_l3_gbs": 0.0}
    assert ceiling(step(bytes_=600_000), peaks)["level"] == "memory"


def test_a_profile_compares_with_the_peaks() -> None:
    session = compiled_network("bineal18", "cifar").session(threads=1)
    x = np.zeros((1, 32, 32, 3), np.uint8)
    assert not KEYS & session.profile(x, rounds=1, peak=False)[0].keys()
    steps = session.profile(x, rounds=1)
    for row in steps:
        assert {key: row[key] for key in KEYS} == ceiling(row, measure_peaks(session.isa))
    bounds = {row["op"]: row["bound"] for row in steps}
    assert bounds["repack"] == "memory"
    assert bounds["input"] is bounds["output"] is None
    assert {"look-ups", "tiles"} & {row["bound"] for row in steps if row["macs_b1"]}
