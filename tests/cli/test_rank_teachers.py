"""``signbit rank-teachers``: what it prints and writes, and how it fails."""

import csv
import json

import pytest

from .test_cli import call
from .test_landscape import save

QUICK = ["--limit", "20", "--threads", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    save(folder / "binary")
    save(folder / "real", "resnet18")
    save(folder / "other_data", info={"data": "mnist"})
    save(folder / "other_size", input_shape=(1, 32, 32))
    known = {"data": "digits", "recipe": {"data": {"image_size": 16, "val_size": 100}}}
    save(folder / "other_cut", info=known)
    return folder


def test_ranking(capsys, runs, tmp_path):
    out = tmp_path / "out"
    arguments = ["rank-teachers", runs / "binary", runs / "real" / "model.pt", "--output", out]
    status, printed, err = call(capsys, *arguments, *QUICK, "--json")
    assert status == 0
    result = json.loads(printed)
    assert (result["data"], result["split"]) == ("digits", "val")
    assert {row["name"] for row in result["teachers"]} == {"binary", "real"}
    scores = [row["score"] for row in result["teachers"]]
    assert scores == sorted(scores)
    assert "not the paper's" in result["note"]
    assert "real: 20 images (digits, val)" in err
    with (out / "teachers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score"]) for row in rows] == scores
    assert (out / "teachers.png").exists()

    status, printed, _ = call(capsys, *arguments, *QUICK)
    assert status == 0
    assert "signbit's reconstruction" in printed
    assert f"{result['teachers'][1]['cross_entropy']:.4f}" in printed
    assert "teachers.png" in printed


def test_a_size_that_is_asked_for(capsys, runs, tmp_path):
    arguments = ["rank-teachers", runs / "other_size", "--output", tmp_path, *QUICK]
    status, _, err = call(capsys, *arguments)
    assert status == 2
    assert "other_size.checkpoint: the teacher was trained on 32x32 images" in err
    assert call(capsys, *arguments, "--input-size", "32")[0] == 0


@pytest.mark.parametrize(
    ("teachers", "message"),
    [
        (["binary", "binary"], "is given twice"),
        (["binary", "other_data"], "other_data was trained on mnist, binary on digits"),
        (["binary", "other_cut"], "(val_size 100 and None): rank them with --split test"),
        (["nothing"], "nothing: no such file"),
    ],
)
def test_what_is_refused(capsys, runs, tmp_path, teachers, message):
    paths = [runs / name for name in teachers]
    status, printed, err = call(capsys, "rank-teachers", *paths, "--output", tmp_path, *QUICK)
    assert status == 2
    assert message in err
    assert not printed


def test_other_parts(capsys, runs, tmp_path):
    arguments = ["rank-teachers", runs / "binary", "--output", tmp_path, *QUICK, "--split"]
    status, _, err = call(capsys, *arguments, "testing")
    assert status == 2
    assert "--split testing: expected train, val or test" in err
    both = ["rank-teachers", runs / "binary", runs / "other_cut", "--output", tmp_path, *QUICK]
    assert call(capsys, *both, "--split", "test")[0] == 0
