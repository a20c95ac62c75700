"""What signbit run writes and says of segmentation."""

import json

import numpy as np
import pytest
from PIL import Image

from signbit.cli.run_segmentation import run_segmentation
from signbit.errors import SignbitError
from tests.runtime.test_segmentation import CLASSES, half_red_half_green, session_of


def test_overlays_masks_and_shares(tmp_path):
    image = half_red_half_green(64, 96)
    inputs = [("a/street.jpg", image), ("b/street.jpg", image[::-1]), ("c/other.png", image)]
    results = run_segmentation(session_of(), inputs, tmp_path)
    assert [result["input"] for result in results] == [name for name, _ in inputs]
    json.dumps(results)
    names = ["street-1.png", "street-2.png", "other.png"]
    for result, name in zip(results, names, strict=True):
        assert result["picture"] == str(tmp_path / name)
        assert result["mask"] == str(tmp_path / "masks" / name)
        assert set(result["classes"]) == set(CLASSES)
        assert sum(result["classes"].values()) == pytest.approx(1, abs=1e-4)
        assert result["classes"]["red"] == pytest.approx(0.5, abs=0.05)
        mask = np.asarray(Image.open(result["mask"]))
        assert mask.shape == (64, 96)
        assert (mask == 1).mean() == pytest.approx(result["classes"]["red"], abs=1e-4)
        assert Image.open(result["picture"]).width > 400
    first, second = (np.asarray(Image.open(result["mask"])) for result in results[:2])
    assert (first == second[::-1]).mean() > 0.95
    assert sorted(p.name for p in tmp_path.glob("*.png")) == sorted(names)


def test_an_image_that_does_not_fit_is_named(tmp_path):
    session = session_of(decode={"image_size": None, "stride": 32})
    with pytest.raises(SignbitError, match=r"tiny\.png: .*20x20 pixels is too small"):
        run_segmentation(session, [("tiny.png", half_red_half_green(20, 20))], tmp_path)
