"""``signbit landscape``: what it prints and writes, and how it fails."""

import json

import numpy as np
import pytest
import torch

from signbit.data import load_source
from signbit.models import create_model
from signbit.training import TrainedModel

from .test_cli import call

QUICK = ["--size", "3", "--images", "20", "--threads", "1"]


def save(folder, name="bineal18", **changes):
    """A network that was not trained, in the folder of a run."""
    source = load_source("digits", image_size=16)
    torch.manual_seed(1)
    spec = {"name": name, "num_classes": 10, "in_channels": 1, "stem": "cifar", "width": 0.125}
    info = {
        "task": "classification",
        "data": "digits",
        "recipe": {"data": {"name": "digits", "image_size": 16, "val_size": None}},
    }
    facts = {
        "class_names": source.class_names, "mean": source.mean, "std": source.std,
        "input_shape": source.input_shape, "info": info,
    }  # fmt: skip
    folder.mkdir()
    TrainedModel(create_model(**spec).eval(), spec, **{**facts, **changes}).save(
        folder / "model.pt"
    )
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    known = {"data": "digits", "recipe": {"data": {"image_size": 16, "val_size": 100}}}
    save(folder / "binary")
    save(folder / "real", "resnet18")
    save(folder / "other_data", info={"data": "mnist"})
    save(folder / "other_classes", class_names=tuple("abcdefghij"))
    save(folder / "other_size", input_shape=(1, 32, 32))
    save(folder / "other_cut", info=known)
    save(folder / "detector", info={"task": "detection"})
    return folder


def test_networks_side_by_side(capsys, runs, tmp_path):
    out = tmp_path / "out"
    arguments = ["landscape", runs / "binary", runs / "real" / "model.pt", "--output", out, *QUICK]
    status, printed, err = call(capsys, *arguments, "--json")
    assert status == 0
    result = json.loads(printed)
    assert list(result["results"]) == ["binary", "real"]
    assert result["settings"]["images"] == 20
    assert result["settings"]["split"] == "train"
    assert "2 x 3 x 3 points, 20 images each (digits, train)" in err
    assert {path.name for path in out.iterdir()} == {
        "landscape.npz", "landscape.json", "landscape.png",
    }  # fmt: skip
    assert json.loads((out / "landscape.json").read_text())["results"] == result["results"]

    before = (out / "landscape.npz").stat().st_mtime_ns
    status, printed, _ = call(capsys, *arguments)  # nothing is measured again
    assert status == 0
    assert (out / "landscape.npz").stat().st_mtime_ns == before
    assert f"{result['results']['real']['loss']:.4f}" in printed
    assert "landscape.png" in printed

    status, _, err = call(capsys, *arguments, "--seed", 3)
    assert status == 2
    assert "seed was 0, now 3" in err
    status, printed, _ = call(capsys, *arguments, "--seed", 3, "--restart", "--json")
    assert status == 0
    again = json.loads(printed)["results"]["real"]
    assert again["loss"] == result["results"]["real"]["loss"]
    assert again["highest_loss"] != result["results"]["real"]["highest_loss"]


def test_networks_of_the_same_name_are_told_apart(capsys, runs, tmp_path, monkeypatch):
    (tmp_path / "x").mkdir()
    save(tmp_path / "x" / "binary", "resnet18")
    monkeypatch.chdir(tmp_path)
    status, printed, _ = call(
        capsys, "landscape", "x/binary", runs / "binary", *QUICK, "--range", 0.5, "--json"
    )
    assert status == 0
    result = json.loads(printed)
    assert list(result["results"]) == ["x/binary", str(runs / "binary")]
    assert result["settings"]["range"] == 0.5
    with np.load(tmp_path / "landscape" / "landscape.npz") as file:
        assert file["positions"].tolist() == [-0.5, 0, 0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{runs}/binary", "--split", "tset"], "expected train, val or test"),
        (["{runs}/binary", "--size", "2"], "size 2: expected an odd number of points"),
        (["{runs}/binary", "--range", "-1"], "range -1.0: expected a positive number"),
        (["{runs}/binary", "{runs}/binary/model.pt"], "model.pt is given twice"),
        (["{runs}/none"], "none: no such file"),
        (["{tmp}"], "is that run complete?"),
        (["{tmp}/file"], "file: not a readable model file"),
        (["{runs}/binary", "{tmp}/file"], "file: not a readable model file"),
        (["{runs}/binary", "--output", "{tmp}/file"], "a file of that name is in the way"),
        (["{runs}/binary", "--data", "{tmp}"], "digits is embedded and takes no path"),
        (["{runs}/other_data"], "mnist is not embedded: say where it lies (--data PATH)"),
        (
            ["{runs}/binary", "{runs}/other_data"],
            "other_data was trained on mnist, binary on digits",
        ),
        (["{runs}/binary", "{runs}/other_classes"], "other_classes was trained on other classes"),
        (["{runs}/binary", "{runs}/other_size"], "other_size takes images of (1, 32, 32), digits"),
        (["{runs}/binary", "{runs}/other_cut"], "compare them with --split test"),
        (["{runs}/detector"], "detector is a network for detection: landscapes are of classifiers"),
    ],
)
def test_errors_are_one_line_and_leave_no_result(capsys, runs, tmp_path, arguments, message):
    (tmp_path / "file").write_text("nothing")
    words = [a.replace("{runs}", str(runs)).replace("{tmp}", str(tmp_path)) for a in arguments]
    if "--output" not in words:
        words += ["--output", str(tmp_path / "out")]
    status, out, err = call(capsys, "landscape", *words)
    assert status == 2
    assert out == ""
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not list(tmp_path.glob("out/*"))


def test_other_cuts_have_the_same_test_images(capsys, runs, tmp_path):
    words = [runs / "binary", runs / "other_cut", "--split", "test", "--output", tmp_path / "o"]
    status, printed, _ = call(capsys, "landscape", *words, *QUICK, "--json")
    assert status == 0
    assert json.loads(printed)["settings"]["split"] == "test"
