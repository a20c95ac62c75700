"""Scenes of digits: deterministic, boxes around the strokes, masks of the digits' classes."""

import numpy as np
import pytest

from signbit.data.digit_scenes import MASK_NAMES, compose_scenes, digit_scenes
from signbit.data.digits import load_digits


def same(a, b):
    return (
        (a.images == b.images).all()
        and (a.masks == b.masks).all()
        and all((x == y).all() for x, y in zip(a.boxes, b.boxes, strict=True))
        and all((x == y).all() for x, y in zip(a.labels, b.labels, strict=True))
    )


@pytest.fixture(scope="module")
def scenes():
    return digit_scenes(train=20, val=5, test=5)


def test_scenes_depend_on_seed_split_and_index_alone(scenes):
    again = digit_scenes(train=20, val=2, test=5)
    assert same(scenes["train"], again["train"])
    assert (scenes["val"].images[:2] == again["val"].images).all()
    assert not (scenes["train"].images[:5] == scenes["val"].images).all((1, 2, 3)).any()
    assert not same(digit_scenes(train=20, seed=1)["train"], scenes["train"])


def test_boxes_hold_exactly_the_pixels_of_their_digit(scenes):
    for split in scenes.values():
        for boxes, labels, mask in zip(split.boxes, split.labels, split.masks, strict=True):
            outside = mask.copy()
            for (left, top, right, bottom), label in zip(boxes.astype(int), labels, strict=True):
                inside = mask[top:bottom, left:right]
                assert set(np.unique(inside)) == {0, 1 + label}
                for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                    assert edge.any()
                outside[top:bottom, left:right] = 0
            assert not outside.any()
        assert max(map(len, split.boxes)) >= 4
        assert split.masks.max() < len(MASK_NAMES)


def test_digits_stand_out_from_the_ground(scenes):
    train = scenes["train"]
    for image, mask in zip(train.images, train.masks, strict=True):
        grey = image.mean(2)
        assert abs(grey[mask > 0].mean() - grey[mask == 0].mean()) > 20


def test_other_sizes():
    scenes = compose_scenes(load_digits().test, 4, (32, 33))
    assert scenes.images.shape == (4, 32, 33, 3)
    assert all(len(boxes) for boxes in scenes.boxes)
    for boxes in scenes.boxes:
        assert (boxes >= 0).all()
        assert (boxes[:, [0, 2]] <= 33).all()
        assert (boxes[:, [1, 3]] <= 32).all()
    with pytest.raises(ValueError, match="too small"):
        compose_scenes(load_digits().test, 1, (31, 64))
