"""``signbit run`` on a network that enlarges images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import signbit
from signbit.cli.compile import compile_trained
from signbit.models import create_model
from signbit.training import TrainedModel
from tests.cli.test_cli import call


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled network that has learnt nothing: nearly bicubic enlargement, three times."""
    torch.manual_seed(0)
    spec = {"name": "edsr_bineal", "scale": 3, "width": 0.125, "blocks": 1, "features": 4}
    network = create_model(**spec)
    images = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (4, 3, 16, 16))).float()
    network(images)
    signbit.calibrate(network.eval(), [images.clamp(-1.6, 2.4)])
    statistics = {"mean": [0.4] * 3, "std": [0.25] * 3}
    trained = TrainedModel(
        network, spec, (), (0.4,) * 3, (0.25,) * 3, (3, 16, 16),
        {"task": "superresolution", "decode": {"scale": 3, **statistics}},
    )  # fmt: skip
    file = tmp_path_factory.mktemp("sr") / "model.signbit"
    compile_trained(trained, file)
    return file


def test_pictures_are_enlarged_and_compared(model: Path, tmp_path: Path, capsys) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        noise = np.random.default_rng(seed).integers(60, 200, (4, 5, 3), np.uint8)
        Image.fromarray(noise).resize((26, 20), Image.Resampling.BICUBIC).save(folder / "cat.png")
    output = tmp_path / "pictures"
    status, out, _ = call(capsys, "run", model, *folders, "--output", output, "--json")
    assert status == 0
    results = json.loads(out)["results"]
    assert [(r["scale"], r["width"], r["height"]) for r in results] == [(3, 78, 60)] * 2
    names = {Path(r[key]).name for r in results for key in ("enlarged", "comparison")}
    assert names == {f"cat-{i}-{end}.png" for i in (1, 2) for end in ("x3", "comparison")}
    assert {file.name for file in output.iterdir()} == names
    for result, folder in zip(results, folders, strict=True):
        with Image.open(folder / "cat.png") as image:
            bicubic = np.asarray(image.resize((78, 60), Image.Resampling.BICUBIC), float)
        found = np.asarray(Image.open(result["enlarged"]), float)
        assert found.shape == (60, 78, 3)
        assert np.abs(found - bicubic)[6:-6, 6:-6].mean() < 10


def test_what_is_no_picture(model: Path, tmp_path: Path, capsys) -> None:
    file = tmp_path / "broken.png"
    file.write_bytes(b"no picture")
    status, _, err = call(capsys, "run", model, file, "--output", tmp_path / "pictures")
    assert status == 2
    assert "broken.png: not a readable image" in err
