"""A comparison from training to its report, on digits, in seconds."""

from __future__ import annotations

import csv
import io
import json
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest

from signbit.cli import main
from signbit.rivals.compare import paired_difference
from signbit.rivals.timing import Quartiles, interleave
from signbit.tasks import get_task
from tests.cli.test_cli import call

QUICK = [
    "--set", "stages.0.epochs=1", "--set", "model.width=0.125", "--set", "threads=1",
]  # fmt: skip


def engines() -> None:
    for name in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(name, reason=f'{name} is missing: pip install "signbit[bench]"')


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compare")


def arguments(folder):
    return ["compare", "classification", "--output", folder, "--threads", 1, "--rounds", 5, *QUICK]


@pytest.fixture(scope="module")
def compared(folder):
    """Status, output and errors of the first comparison, which trains the networks in `folder`."""
    engines()
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as caught:
        main([str(word) for word in (*arguments(folder), "--json")])
    return caught.value.code, out.getvalue(), err.getvalue()


def test_compare_digits(compared, folder):
    status, out, err = compared
    assert status == 0, err
    report = json.loads(out)
    # Of the 8-bit forms of an engine the fastest comes first, then the best if that is another.
    rows = {(row["network"], row["engine"].split()[0]): row for row in report["rows"][::-1]}
    assert set(rows) == {
        ("full precision", "OpenVINO"), ("8-bit", "OpenVINO"), ("8-bit", "ONNX"),
        ("binary", "signbit"),
    }  # fmt: skip
    binary, real = rows["binary", "signbit"], rows["full precision", "OpenVINO"]
    assert binary["bytes"] == (folder / "model.signbit").stat().st_size
    assert real["bytes"] == (folder / "float.onnx").stat().st_size > 10 * binary["bytes"]
    trained = json.loads((folder / "binary" / "metrics.json").read_text())
    assert binary["accuracy"] == pytest.approx(trained["test_accuracy"], abs=1e-4)
    trained = json.loads((folder / "float" / "metrics.json").read_text())
    assert real["accuracy"] == pytest.approx(trained["test_accuracy"], abs=1e-4)
    assert all(
        row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] for row in rows.values()
    )
    assert all(row["examples"] == 359 and row["ms_1_median"] > 0 for row in rows.values())
    # 1 is the fastest 8-bit row, which need not be the form that was fastest in trials.
    eight = [row["speed_1_median"] for row in report["rows"] if row["network"] == "8-bit"]
    assert 1.0 in eight
    best = max(row["accuracy"] for row in report["rows"] if row["network"] == "8-bit")
    difference = report["binary_minus_8bit"]
    assert difference["value"] == pytest.approx(binary["accuracy"] - best, abs=2e-5)
    assert difference["interval"][0] <= difference["value"] <= difference["interval"][1]
    with (folder / "compare.csv").open() as file:
        assert [row["network"] for row in csv.DictReader(file)] == [
            row["network"] for row in report["rows"]
        ]
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png") == 1
    assert f"{binary['accuracy']:.2%}" in page


@pytest.mark.usefixtures("compared")
def test_networks_are_trained_once(folder, capsys):
    before = {p: p.stat().st_mtime_ns for p in folder.glob("*/model.pt")}
    assert len(before) == 2
    status, _, err = call(capsys, *arguments(folder))
    assert status == 0, err
    assert "trained before" in err
    assert {p: p.stat().st_mtime_ns for p in folder.glob("*/model.pt")} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clasification"], "unknown task 'clasification' (did you mean 'classification'?)"),
        (["detection", "--recipe", "digits"], "digits is a recipe of classification, not of"),
        (["classification", "--binary", "{}/float"], "--binary: resnet18 has no binary layers"),
        (["detection", "--binary", "{}/binary"], "not for detection"),
        (["classification", "--binary", "{}/binary", "--recipe", "digits"], "is trained already"),
        (["classification", "--threads", "4096"], "this process may use"),
        (["classification", "--isa", "mmx"], "--isa mmx: this machine has"),
        (["classification", "--rival", "digits-flat"], "digits-flat: no such file or recipe"),
        (
            ["classification", "--set", "seed=9"],
            "was started with another recipe: seed was 1, now 9",
        ),
    ],
)
@pytest.mark.usefixtures("compared")
def test_errors_name_what_is_wrong(words, message, folder, capsys):
    words = [word.format(folder) for word in words]
    status, _, err = call(capsys, "compare", *words, "--output", folder, "--rounds", 5, *QUICK)
    assert status == 2
    assert message in err


def test_paired_intervals_leave_out_what_is_hard_for_both():
    task = get_task("classification")
    generator = np.random.default_rng(0)
    hard = generator.random(500) < 0.3
    first = [(not h, 0.0) for h in hard]
    second = [(not h and i % 50 != 0, 0.0) for i, h in enumerate(hard)]
    value, low, high = paired_difference(task, first, second, rounds=500)
    assert value == pytest.approx(
        np.mean([a - b for (a, _), (b, _) in zip(first, second, strict=True)], dtype=float)
    )
    assert 0 < low < value < high < 0.04  # unpaired, the interval of either is 0.08 wide


def test_rounds_take_turns():
    order = []
    runs = {name: (lambda n=name: order.append(n)) for name in "abc"}
    begun = []
    times = interleave(runs, 3, 1, "wall", each_round=lambda: begun.append(len(order)))
    assert begun == [6, 12, 18]
    assert {name: len(ms) for name, ms in times.items()} == {"a": 3, "b": 3, "c": 3}
    timed = order[6:]  # two untimed runs each come first, and one before each timed one
    assert timed[::2] == timed[1::2] == list("abcbcacab")
    assert Quartiles.of(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == Quartiles(2.0, 3.0, 4.0)
