"""Crops keep boxes on their objects; the maps say what CenterNet's paper asks for."""

import numpy as np
import pytest

from signbit.data.box_examples import BoxExamples, centre_maps
from signbit.data.boxes import BoxDataset


def dataset(boxes, size=(64, 96), ignored=None):
    """An image a list of boxes, each of 200 in a channel of its own, else black."""
    images = np.zeros((len(boxes), *size, 3), np.uint8)
    for image, own in zip(images, boxes, strict=True):
        for k, (left, top, right, bottom) in enumerate(own):
            image[top:bottom, left:right, k] = 200
    count = len(boxes)
    return BoxDataset(
        images,
        tuple(np.array(own, np.float32).reshape(-1, 4) for own in boxes),
        tuple(np.arange(len(own)) % 2 for own in boxes),
        tuple(np.zeros(len(own), bool) for own in boxes) if ignored is None else ignored,
        tuple(f"image {i}" for i in range(count)),
        np.ones((count, 2), np.float32),
    )


def boxes_of(targets, stride=4):
    """Label and box of every centre."""
    found = []
    for _, row, column in zip(*np.nonzero(targets["centre"]), strict=True):
        (label,) = np.flatnonzero(targets["heatmap"][:, row, column] == 1)
        width, height = targets["size"][:, row, column] * stride
        x = (column + targets["offset"][0, row, column]) * stride
        y = (row + targets["offset"][1, row, column]) * stride
        found.append((int(label), x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return found


def test_an_example_as_it_is():
    data = dataset([[(8, 8, 40, 24), (50, 30, 77, 61)], []])
    examples = BoxExamples(data, 2, 4, crop=(32, 32), flip=True, rotate=True)
    pixels, targets = examples.example(0, None)
    assert (pixels == data.images[:1]).all()
    assert targets["heatmap"].shape == (2, 16, 24)
    assert boxes_of(targets) == [(0, 8, 8, 40, 24), (1, 50, 30, 77, 61)]
    assert (targets["boxes"] == data.boxes[0]).all()
    assert targets["labels"].tolist() == [0, 1]
    _, empty = examples.example(1, None)
    assert empty["boxes"].shape == (0, 4)
    assert not any(empty[name].any() for name in ("heatmap", "size", "offset", "centre"))


def test_maps_by_hand():
    """One box of 40 x 20 pixels of the map at (10.5, 8.25): radius, Gaussian, size and offset."""
    boxes = np.array([[-9.5, -1.75, 30.5, 18.25]], np.float32) * 4
    maps = centre_maps(boxes, np.array([1]), np.array([False]), (96, 160), 3, 4)
    # 2.8 r^2 ... as the program has it: b = -2 * 0.7 * 60 = -84, c = -0.3 * 800 = -240
    radius = int((-84 + np.sqrt(84**2 + 4 * 2.8 * 240)) / 2)
    assert radius == 7
    deviation = 15 / 6
    heat = maps["heatmap"]
    assert heat[1, 8, 10] == 1
    assert heat[1, 8, 17] == pytest.approx(np.exp(-49 / (2 * deviation**2)))
    assert heat[1, 5, 12] == pytest.approx(np.exp(-13 / (2 * deviation**2)))
    assert heat[1, 8, 18] == 0
    assert not heat[[0, 2]].any()
    assert np.argwhere(maps["centre"][0]).tolist() == [[8, 10]]
    assert maps["size"][:, 8, 10].tolist() == [40, 20]
    assert maps["offset"][:, 8, 10].tolist() == [0.5, 0.25]


def test_ignored_objects_ask_for_nothing():
    boxes = np.array([[0, 0, 32, 32], [8, 8, 16, 16]], np.float32)
    maps = centre_maps(boxes, np.array([0, 0]), np.array([True, False]), (64, 64), 1, 4)
    heat = maps["heatmap"][0]
    assert heat[3, 3] == 1
    assert ((heat[:8, :8] > 0.999) & (heat[:8, :8] <= 1)).all()
    assert (heat == 1).sum() == 1
    assert not heat[8:].any()
    assert maps["centre"].sum() == 1


def test_where_centres_share_a_pixel_the_smaller_box_is_learnt():
    boxes = np.array([[16, 16, 24, 24], [0, 0, 40, 40]], np.float32)
    maps = centre_maps(boxes, np.array([0, 1]), np.array([False, False]), (64, 64), 2, 4)
    assert maps["size"][:, 5, 5].tolist() == [2, 2]
    assert (maps["heatmap"][:, 5, 5] == 1).all()


@pytest.mark.parametrize("crop", [None, (64, 64), (32, 64), (96, 128)])
@pytest.mark.parametrize("zoom", [None, (0.7, 1.4)])
def test_boxes_stay_on_their_objects(crop, zoom):
    """In every crop, a kept object's pixels lie where its box says, and nowhere else."""
    data = dataset([[(8, 8, 40, 24), (50, 30, 80, 61)]])
    examples = BoxExamples(data, 2, 4, crop=crop, flip=True, rotate=True, zoom=zoom)
    shapes, kept = set(), 0
    for seed in range(40):
        pixels, targets = examples.example(0, np.random.default_rng(seed))
        shapes.add(pixels.shape)
        for label, left, top, right, bottom in boxes_of(targets):
            kept += 1
            rows, columns = np.nonzero(pixels[0, ..., label] > 100)
            edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            slack = 0.01 if zoom is None else 1
            assert np.abs(np.subtract(edges, (left, top, right, bottom))).max() <= slack
    assert shapes == {(1, *(crop or (64, 96)), 3)}
    assert kept > 20


def test_objects_that_a_crop_hardly_shows_are_left_out():
    data = dataset([[(0, 0, 32, 32)]], size=(64, 64))
    examples = BoxExamples(data, 2, 4, crop=(32, 32))
    counts = {}
    for seed in range(60):
        pixels, targets = examples.example(0, np.random.default_rng(seed))
        shown = (pixels[0, ..., 0] == 200).sum() / 32**2
        if abs(shown - 0.3) > 1e-6:
            counts.setdefault(shown > 0.3, []).append(targets["centre"].sum())
    assert set(counts[True]) == {1}
    assert set(counts[False]) == {0}


def test_what_lies_around_an_image_is_black_and_the_image_is_shaded():
    data = dataset([[(0, 0, 32, 32)]], size=(32, 32))
    examples = BoxExamples(data, 2, 4, crop=(64, 64), brightness=0.2, contrast=0.3)
    values = set()
    for seed in range(10):
        pixels, _ = examples.example(0, np.random.default_rng(seed))
        assert (pixels == 0).any()
        values |= set(np.unique(pixels).tolist())
        assert len(np.unique(pixels[..., 0])) == 2
    assert len(values) > 5


def test_augmentation_is_a_function_of_the_generator():
    data = dataset([[(8, 8, 40, 24)]])
    examples = BoxExamples(
        data, 2, 4, crop=(64, 64), flip=True, rotate=True, zoom=(0.5, 2), brightness=0.1
    )
    first, again, other = (examples.example(0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first[0] == again[0]).all()
    assert all((first[1][name] == again[1][name]).all() for name in first[1])
    assert not (first[0] == other[0]).all()
