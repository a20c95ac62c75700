"""Detection through the verbs: from annotated photographs to boxes in the engine."""

import json

import pytest

from signbit.training import load_recipe
from tests.data.boxes_on_disk import write_voc

from .test_cli import call

RECIPE = """
task: detection
data: {name: voc, batch_size: 3, val_size: 1, image_size: [64, 96], augment: {flip: true}}
model: {name: centernet_bineal18, stem: imagenet, width: 0.125, options: {stem_kernel: 3}}
stages: [{name: binary, epochs: 2, optimizer: {lr: 5.0e-3}}]
weights: last
threads: 1
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from signbit.cli import main

    folder = tmp_path_factory.mktemp("detection")
    data = write_voc(folder / "data")
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
    assert report["examples"] == 1
    for score in ("map50", "map"):
        assert 0 <= report["engine"][score]["value"] <= 1
        assert report["engine"][score]["value"] == report["pytorch"][score]["value"]


@pytest.mark.slow
def test_run_draws_boxes_and_says_them(trained, capsys, tmp_path):
    picture = trained / "data" / "JPEGImages" / "a.png"
    status, out, err = call(
        capsys, "run", trained / "model.signbit", picture, "--output", tmp_path, "--json"
    )
    assert status == 0, err
    (result,) = json.loads(out)["results"]
    assert result["input"] == str(picture)
    assert (tmp_path / "a-boxes.png").exists()
    for box in result["boxes"]:
        assert box["class"] in ("cat", "dog")
        left, top, right, bottom = box["box"]
        assert 0 <= left < right <= 96
        assert 0 <= top < bottom <= 64


@pytest.mark.slow
def test_the_file_says_how_to_decode(trained, capsys):
    status, out, _ = call(capsys, "inspect", trained / "model.signbit", "--json")
    assert status == 0
    assert '"detection"' in out
    assert "image_size" in out


def test_wrong_data_stop_before_training(tmp_path, capsys):
    data = write_voc(tmp_path / "data")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    file = data / "Annotations" / "b.xml"
    file.write_text(file.read_text().replace("<xmax>36</xmax>", "<xmax>360</xmax>"))
    run = tmp_path / "run"
    words = ["train", tmp_path / "recipe.yaml", "--data", data, "--output", run]
    status, _, err = call(capsys, *words)
    assert status == 2
    assert "b.xml: object 1" in err
    assert not (run / "metrics.csv").exists()
    status, _, err = call(capsys, *words, "--set", "data.augment.crop_padding=4")
    assert status == 2
    assert "crop_padding" in err


@pytest.mark.parametrize("name", ["detection-demo", "bccd-centernet"])
def test_recipes_of_rivals_have_as_many_epochs(name):
    from signbit.cli.recipes import find_recipe

    binary, rival = (load_recipe(find_recipe(f"{name}{end}")) for end in ("", "-float"))
    assert binary.epochs == rival.epochs
    assert binary.data == rival.data
    assert (binary.model.name, rival.model.name) == ("centernet_bineal18", "centernet_resnet18")
