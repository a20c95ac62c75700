"""Matching through the verbs: from photographs and pairs to matches from the engine."""

from __future__ import annotations

import json

import numpy as np
import pytest

from signbit.data.decode import open_image, pixels
from signbit.runtime import describe, load
from signbit.training import load_recipe
from tests.data.test_pairs import write_photographs, write_scene

from .test_cli import call

RECIPE = """
task: matching
data:
  name: image_pairs
  batch_size: 2
  val_size: 1
  crop_size: 64
  epoch_images: 8
  augment: {flip: true, contrast: 0.3}
  options: {longer_side: 128, keypoints: 50, descriptors: binary, noise: 0.05}
model: {name: r2d2_bineal, width: 0.5, options: {stride: 8, skip: true}}
stages: [{name: binary, epochs: 2, optimizer: {lr: 5.0e-3}}]
weights: last
threads: 1
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from signbit.cli import main

    folder = tmp_path_factory.mktemp("matching")
    write_photographs(folder / "data" / "photographs")
    write_scene(folder / "data" / "pairs" / "s", 3, size=(100, 120))
    (folder / "recipe.yaml").write_text(RECIPE)
    run, file = folder / "run", folder / "model.signbit"
    for words in (
        ["train", folder / "recipe.yaml", "--data", folder / "data", "--output", run],
        ["compile", run, "-o", file],
    ):
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        assert caught.value.code == 0
    return folder


@pytest.mark.slow
def test_the_engine_scores_as_pytorch_does(trained, capsys):
    status, out, err = call(
        capsys, "eval", trained / "run", "--data", trained / "data", "--engine",
        trained / "model.signbit", "--json",
    )  # fmt: skip
    assert status == 0, err
    report = json.loads(out)
    assert report["examples"] == 2
    for score in ("mma5", "mma3", "matches"):
        assert report["engine"][score]["value"] == pytest.approx(
            report["pytorch"][score]["value"], rel=0.05, abs=0.02
        )
    metrics = json.loads((trained / "run" / "metrics.json").read_text())
    assert metrics["test_mma5"] == pytest.approx(report["pytorch"]["mma5"]["value"])
    assert metrics["images"] == {"train": 3, "val": 2, "test": 2}


@pytest.mark.slow
def test_pictures_and_json(trained, capsys, tmp_path):
    scene = trained / "data" / "pairs" / "s"
    status, out, err = call(
        capsys, "run", trained / "model.signbit", scene / "1.png", scene / "3.png",
        "--output", tmp_path, "--json",
    )  # fmt: skip
    assert status == 0, err
    (result,) = json.loads(out)["results"]
    assert (tmp_path / "1-1-3.png").read_bytes().startswith(b"\x89PNG")
    assert 0 <= result["right"] <= len(result["matches"])
    image = pixels(open_image(scene / "1.png", "1.png"), 3)
    found = describe(load(trained / "model.signbit", threads=1), image)
    assert found.descriptors.dtype == np.uint8
    assert found.descriptors.shape == (result["first_keypoints"], 8)


@pytest.mark.slow
def test_one_picture_is_no_pair(trained, capsys, tmp_path):
    status, _, err = call(
        capsys, "run", trained / "model.signbit", trained / "data/pairs/s/1.png",
        "--output", tmp_path,
    )  # fmt: skip
    assert status == 2
    assert "two by two, got 1" in err


@pytest.mark.slow
def test_a_broken_homography_stops_before_training(trained, capsys, tmp_path):
    write_photographs(tmp_path / "photographs")
    write_scene(tmp_path / "pairs" / "s", 2)
    (tmp_path / "pairs" / "s" / "H_1_2.txt").write_text("1 0 0\n")
    status, _, err = call(
        capsys, "train", trained / "recipe.yaml", "--data", tmp_path, "--output", tmp_path / "run"
    )
    assert status == 2
    assert "H_1_2.txt" in err.replace("\n", "")
    assert not (tmp_path / "run" / "metrics.csv").exists()


@pytest.mark.parametrize("name", ["matching", "matching-demo"])
def test_recipes_differ_from_their_rivals_in_the_network_alone(name):
    from signbit.cli.recipes import find_recipe

    binary, real = (load_recipe(find_recipe(n)) for n in (name, f"{name}-float"))
    assert binary.data == real.data
    assert binary.epochs == real.epochs
    assert (binary.model.name, real.model.name) == ("r2d2_bineal", "r2d2")
    assert binary.model.options.get("stride", 4) == real.model.options.get("stride", 4)
