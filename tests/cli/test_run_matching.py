"""What signbit run writes and says of matching."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from signbit.cli.run_matching import run_matching
from signbit.errors import DataError, SignbitError
from tests.runtime.test_matching import MadeUp, photograph


def test_pairs_are_matched_and_drawn(tmp_path: Path) -> None:
    a, b = photograph(60, 80), photograph(70, 90)
    inputs = [("x/a.png", a), ("y/a.jpg", a), ("x/a.png", a), ("x/b.png", b)]
    results = run_matching(MadeUp(), inputs, tmp_path)
    json.dumps(results)
    assert [result["input"] for result in results] == ["x/a.png y/a.jpg", "x/a.png x/b.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1-a-a.png", "2-a-b.png"]
    same, other = results
    assert same["picture"] == str(tmp_path / "1-a-a.png")
    # An image matches itself point by point.
    assert len(same["matches"]) == same["first_keypoints"] == same["second_keypoints"] > 20
    assert all(x1 == x2 and y1 == y2 for x1, y1, x2, y2 in same["matches"])
    assert 0 < len(other["matches"]) < len(same["matches"])
    assert "right" not in same


@pytest.mark.parametrize("suffix", [".txt", ""])
def test_a_homography_beside_the_pictures_tells_what_is_right(tmp_path: Path, suffix: str) -> None:
    image = photograph(60, 80)
    inputs = [(str(tmp_path / "1.png"), image), (str(tmp_path / "3.png"), image)]
    file = tmp_path / f"H_1_3{suffix}"
    for shift, share in ((0, 1), (4, 1), (6, 0)):
        file.write_text(f"1 0 {shift}\n0 1 0\n0 0 1\n")
        (result,) = run_matching(MadeUp(), inputs, tmp_path)
        assert result["right"] == share * len(result["matches"])
    file.write_text("1 0\n0 1\n")
    with pytest.raises(DataError, match=r"H_1_3.*a homography is 3x3"):
        run_matching(MadeUp(), inputs, tmp_path)


def test_pictures_come_two_by_two(tmp_path: Path) -> None:
    image = photograph(60, 80)
    with pytest.raises(SignbitError, match=r"two by two, got 3: c\.png has no partner"):
        run_matching(MadeUp(), [(name, image) for name in ("a.png", "b.png", "c.png")], tmp_path)
    with pytest.raises(SignbitError, match="got 0: give at least two"):
        run_matching(MadeUp(), [], tmp_path)


def test_a_picture_that_is_too_small_is_named(tmp_path: Path) -> None:
    inputs = [("a.png", photograph(60, 80)), ("tiny.png", np.zeros((10, 10, 3), np.uint8))]
    with pytest.raises(SignbitError, match=r"tiny\.png: .*10x10 pixels is too small"):
        run_matching(MadeUp(), inputs, tmp_path)
