"""Presets of hardware: units, sizes, names, and those that come with signbit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from signbit.errors import SignbitError
from signbit.hardware import presets
from signbit.hardware.photonic import PhotonicAccelerator
from signbit.hardware.presets import PresetError
from signbit.hardware.streaming import StreamingFabric
from signbit.hardware.systolic import SystolicArray


def own(tmp_path: Path, **changes: str | None) -> Path:
    """binE-16 as a file of one's own, with other fields, as YAML; None leaves one out."""
    fields = yaml.safe_load((presets.FOLDER / "binE-16.yaml").read_text())
    for key, value in changes.items():
        fields.pop(key, None)
        if value is not None:
            fields[key] = yaml.safe_load(value)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


@pytest.mark.parametrize(("name", "lanes"), [("binE-16", 16), ("binE-8", 8)])
def test_the_frozen_presets(name: str, lanes: int) -> None:
    """The parameters of the reconstruction: to change one is to give up the comparison."""
    array = SystolicArray.load(name)
    assert array == SystolicArray(
        name, rows=16, columns=16, dataflow="weight_stationary", binary_lanes=lanes,
        packing="dense", folds="full", vector_width=16, vector_schedule="added",
        output_stage=("compare",), streaming="whole", input_buffer=math.inf,
        weight_buffer=math.inf, output_buffer=math.inf, accumulator_width=32.0,
        dram_bandwidth=math.inf, clock=None,
    )  # fmt: skip


@pytest.mark.parametrize("cls", [SystolicArray, StreamingFabric, PhotonicAccelerator])
def test_presets_of_every_kind_load(cls: Any) -> None:
    kinds = {SystolicArray: "systolic", StreamingFabric: "streaming"}
    names = presets.available(kinds.get(cls, "photonic"))
    assert names
    assert [cls.load(name).name for name in names] == names
    with pytest.raises(PresetError, match="kind is '"):
        cls.load("oxbnn-50" if cls is not PhotonicAccelerator else "google")


def test_scale_sims_presets() -> None:
    google, eyeriss = SystolicArray.load("google"), SystolicArray.load("eyeriss")
    assert (google.rows, google.columns, google.dataflow) == (256, 256, "output_stationary")
    assert google.input_buffer == google.output_buffer == 8 * 8 * 2**20
    assert (eyeriss.rows, eyeriss.columns, eyeriss.dataflow) == (12, 14, "weight_stationary")
    assert eyeriss.weight_buffer == 108 * 8 * 1024


def test_available_by_kind() -> None:
    assert {"binE-8", "binE-16", "eyeriss", "google"} <= set(presets.available("systolic"))
    assert not set(presets.available("systolic")) & set(presets.available("streaming"))
    assert set(presets.available("systolic")) < set(presets.available())


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    array = SystolicArray.load(
        own(tmp_path, rows="8", clock="1.5 GHz", dram_bandwidth="4 B/cycle", input_buffer="2 kB")
    )
    assert (array.name, array.rows, array.clock) == ("mine", 8, 1.5e9)
    assert (array.dram_bandwidth, array.input_buffer) == (32.0, 16000.0)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("clock", "700", "clock has no unit: write e.g. '700 GHz'"),
        ("clock", "'700 '", "clock has no unit"),
        ("input_buffer", "1024", "input_buffer has no unit: .*bit, B, kB, KiB"),
        (
            "dram_bandwidth",
            "8 GB/s",
            "dram_bandwidth is a bandwidth, in bit/cycle, B/cycle; 'GB/s'",
        ),
        ("clock", "fast", "clock must be a number and its unit"),
        ("clock", "true", "clock must be a number and its unit"),
        ("clock", "unlimited", "clock must be a number and its unit"),
        ("clock", "0 GHz", "clock must be above 0, got 0 Hz"),
        ("input_buffer", "0 KiB", "input_buffer must be above 0"),
        ("accumulator_width", "-8 bit", "accumulator_width must be above 0"),
        ("rows", "0", "rows must be at least 1, got 0"),
        ("rows", "16.5", "rows must be a whole number, got 16.5"),
        ("rows", "true", "rows must be a whole number"),
        ("rows", None, "rows is missing"),
        ("source", None, "source is missing"),
        ("kind", None, "kind is missing"),
        ("kind", "streaming", "kind is 'streaming', and 'systolic' is needed here: one of binE-16"),
        ("row", "4", "row is not a field of a systolic preset; did you mean rows?"),
        ("dataflow", "weights", "dataflow must be one of output_stationary, .* got 'weights'"),
        ("output_stage", "compare", "output_stage must be a list of words of add"),
        ("output_stage", "[compare, compare]", "output_stage names a word twice"),
        ("output_stage", "[divide]", "output_stage must be one of add"),
    ],
)
def test_bad_fields_are_named(tmp_path: Path, field: str, value: str | None, words: str) -> None:
    with pytest.raises(PresetError, match=rf"mine\.yaml: {words}"):
        SystolicArray.load(own(tmp_path, **{field: value}))


def test_unknown_presets_have_a_nearest() -> None:
    with pytest.raises(
        PresetError, match=r"unknown systolic preset 'bine16'; did you mean binE-16\?"
    ):
        SystolicArray.load("bine16")
    with pytest.raises(PresetError, match=r"preset 'xyz'\. Known: binE-16"):
        SystolicArray.load("xyz")


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match="there is no such file"):
        SystolicArray.load(tmp_path / "none.yaml")
    path = tmp_path / "broken.yaml"
    path.write_text("rows: [")
    with pytest.raises(PresetError, match=r"broken\.yaml: "):
        SystolicArray.load(path)
    path.write_text("- a list")
    with pytest.raises(PresetError, match=r"broken\.yaml: must be fields"):
        SystolicArray.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PresetError, match=r"broken\.yaml: "):
        SystolicArray.load(path)


def test_presets_name_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(SignbitError, match=r"pip install 'signbit\[train\]'"):
        SystolicArray.load("google")
