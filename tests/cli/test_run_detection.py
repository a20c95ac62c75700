"""What signbit run writes and says of detection."""

import json

import numpy as np
import pytest
from PIL import Image

from signbit.cli.run_detection import run_detection
from signbit.errors import SignbitError
from tests.runtime.test_detection import Session

IMAGE = np.full((64, 96, 3), 120, np.uint8)


def test_boxes_and_pictures(tmp_path):
    session = Session((1, 2, 3, 2.0, 4, 2, 0.5, 0.25), (0, 9, 9, 1.0, 6, 6, 0, 0))
    inputs = [("a/cells.jpg", IMAGE), ("b/cells.jpg", IMAGE), ("c/other.png", IMAGE)]
    results = run_detection(session, inputs, tmp_path)
    json.dumps(results)
    assert [result["input"] for result in results] == [name for name, _ in inputs]
    names = ["cells-1-boxes.png", "cells-2-boxes.png", "other-boxes.png"]
    assert [result["picture"] for result in results] == [str(tmp_path / name) for name in names]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert results[0]["boxes"] == [
        {"class": "dog", "score": 0.8808, "box": [6.0, 5.0, 22.0, 13.0]},
        {"class": "cat", "score": 0.7311, "box": [24.0, 24.0, 48.0, 48.0]},
    ]
    assert Image.open(results[0]["picture"]).width > 700


def test_nothing_found_and_no_class_names(tmp_path):
    session = Session((1, 2, 3, 2.0, 4, 2, 0, 0))
    del session.metadata["class_names"]
    (result,) = run_detection(session, [("x.png", IMAGE)], tmp_path)
    assert result["boxes"][0]["class"] == "1"
    (result,) = run_detection(Session(), [("y.png", IMAGE)], tmp_path)
    assert result["boxes"] == []
    assert (tmp_path / "y-boxes.png").exists()


def test_a_picture_that_does_not_fit_is_named(tmp_path):
    with pytest.raises(SignbitError, match=r"tiny\.png: .*20x20 pixels is too small"):
        run_detection(Session(), [("tiny.png", IMAGE[:20, :20])], tmp_path)
