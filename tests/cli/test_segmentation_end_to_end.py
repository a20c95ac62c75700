"""Segmentation through the verbs: from photographs with masks to overlays from the engine."""

import json

import numpy as np
import pytest
from PIL import Image

from signbit.training import load_recipe
from tests.data.test_masks import mask_of, picture, png, write

from .test_cli import call

RECIPE = """
task: segmentation
data:
  name: masks
  batch_size: 3
  val_size: 1
  image_size: [64, 96]
  crop_size: [32, 64]
  augment: {flip: true, zoom: [0.8, 1.2]}
  options: {void: 3, balance: 0.5}
model: {name: fcn_bineal18, stem: imagenet, width: 0.125, options: {stem_kernel: 3}}
stages: [{name: binary, epochs: 2, optimizer: {lr: 5.0e-3}}]
weights: last
threads: 1
"""
SIZE = (70, 90)


def write_data(root):
    """Seven training and two validation images of three classes and void."""
    files = {"classes.txt": b"sky\nroad\ncar\n"}
    for i in range(9):
        split = "train" if i < 7 else "val"
        files[f"{split}/images/{i}.png"] = png(picture(i, SIZE))
        files[f"{split}/labels/{i}.png"] = png(mask_of(i, SIZE))
    return write(root, files)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from signbit.cli import main

    folder = tmp_path_factory.mktemp("segmentation")
    data = write_data(folder / "data")
    (folder / "recipe.yaml").write_text(RECIPE)
    run, file = folder / "run", folder / "model.signbit"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGNBIT_CACHE", str(folder / "cache"))
        for words in (
            ["train", folder / "recipe.yaml", "--data", data, "--output", run],
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
    for score in ("miou", "pixel_accuracy"):
        assert 0 <= report["engine"][score]["value"] <= 1
        assert report["engine"][score]["value"] == pytest.approx(
            report["pytorch"][score]["value"], abs=0.02
        )
    metrics = json.loads((trained / "run" / "metrics.json").read_text())
    assert metrics["test_miou"] == pytest.approx(report["pytorch"]["miou"]["value"])


@pytest.mark.slow
def test_run_draws_overlays_and_says_shares(trained, capsys, tmp_path):
    image = trained / "data" / "val" / "images" / "7.png"
    status, out, err = call(
        capsys, "run", trained / "model.signbit", image, "--output", tmp_path, "--json"
    )
    assert status == 0, err
    (result,) = json.loads(out)["results"]
    assert result["input"] == str(image)
    assert (tmp_path / "7.png").exists()
    mask = np.asarray(Image.open(result["mask"]))
    assert mask.shape == SIZE
    for i, name in enumerate(("sky", "road", "car")):
        assert result["classes"].get(name, 0) == pytest.approx((mask == i).mean(), abs=1e-4)


@pytest.mark.slow
def test_run_refuses_what_is_of_classifiers_alone(trained, capsys):
    status, _, err = call(capsys, "run", trained / "model.signbit", "x.png", "--top", 3)
    assert status == 2
    assert "--top" in err
    assert "segmentation" in err


@pytest.mark.slow
def test_the_file_says_how_to_decode(trained, capsys):
    status, out, _ = call(capsys, "inspect", trained / "model.signbit", "--json")
    assert status == 0
    assert '"segmentation"' in out
    assert "image_size" in out


def test_wrong_data_stop_before_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SIGNBIT_CACHE", str(tmp_path / "cache"))
    data = write_data(tmp_path / "data")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run = tmp_path / "run"
    words = ["train", tmp_path / "recipe.yaml", "--data", data, "--output", run]
    for change, message in (
        ("data.augment.crop_padding=4", "crop_padding"),
        ("data.options.viod=3", "data.options.viod: unknown; did you mean 'void'?"),
        ("data.crop_size=[128,64]", "data.crop_size: 128x64"),
    ):
        status, _, err = call(capsys, *words, "--set", change)
        assert status == 2
        assert message in err
    (data / "train" / "labels" / "2.png").write_bytes(png(picture(2, SIZE)))
    status, _, err = call(capsys, *words)
    assert status == 2
    assert "2.png: a colour mask" in " ".join(err.split())
    assert not (run / "metrics.csv").exists()


@pytest.mark.parametrize("name", ["segmentation-demo", "camvid-fcn"])
def test_recipes_of_rivals_have_as_many_epochs(name):
    from signbit.cli.recipes import find_recipe

    binary, rival = (load_recipe(find_recipe(f"{name}{end}")) for end in ("", "-float"))
    assert binary.epochs == rival.epochs
    assert binary.data == rival.data
    assert (binary.model.name, rival.model.name) == ("fcn_bineal18", "fcn_resnet18")
