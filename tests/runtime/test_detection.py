"""Boxes from maps by hand, and detect() on a session that answers as it is told to."""

import numpy as np
import pytest

from signbit.errors import FormatError, SessionError
from signbit.runtime import DetectedBox, detect, find_boxes
from signbit.runtime.detection import pad_image

NAMES = ["cat", "dog"]


def maps(objects=(), classes=2, size=(8, 12), background=-6.0):
    """Outputs in which (label, row, column, logit, width, height, dx, dy) are peaks."""
    heat = np.full((1, classes, *size), background, np.float32)
    sizes, offsets = (np.zeros((1, 2, *size), np.float32) for _ in range(2))
    for label, row, column, logit, width, height, dx, dy in objects:
        heat[0, label, row, column] = logit
        sizes[0, :, row, column] = width, height
        offsets[0, :, row, column] = dx, dy
    return heat, sizes, offsets


class Session:
    """Answers any image with the same objects, and remembers what it was given."""

    def __init__(self, *objects, **facts):
        self.objects = objects
        decode = {"stride": 4, "multiple": 32, "image_size": None, **facts}
        self.metadata = {"task": "detection", "decode": decode, "class_names": NAMES}
        self.input_shape = (3, 64, 96)
        self.given = []

    def __call__(self, pixels):
        self.given.append(pixels)
        return maps(self.objects, size=(pixels.shape[0] // 4, pixels.shape[1] // 4))


def test_boxes_by_hand():
    (found,) = find_boxes(
        maps([(1, 2, 3, 2.0, 4, 2, 0.5, 0.25), (0, 7, 11, 0.0, 2, 2, 0, 0.75)]), 4, limit=2
    )
    assert found.labels.tolist() == [1, 0]
    assert found.scores == pytest.approx([1 / (1 + np.exp(-2)), 0.5])
    assert found.boxes.tolist() == [[6, 5, 22, 13], [40, 27, 48, 35]]
    assert (found.boxes.dtype, found.scores.dtype) == (np.float32, np.float32)


def test_a_neighbour_that_is_larger_hides_a_peak_in_its_own_class_alone():
    near = [(0, 3, 3, 2.0, 2, 2, 0, 0), (0, 4, 4, 1.0, 2, 2, 0, 0), (1, 4, 4, 1.0, 2, 2, 0, 0)]
    (found,) = find_boxes(maps(near), 4)
    assert found.labels.tolist()[:2] == [0, 1]
    assert (found.scores > 0.5).sum() == 2
    (found,) = find_boxes(maps([(0, 3, 3, 2.0, 2, 2, 0, 0), (0, 3, 5, 1.0, 2, 2, 0, 0)]), 4)
    assert (found.scores > 0.5).sum() == 2


@pytest.mark.parametrize("step", [(0, 1), (1, 0), (1, 1), (1, -1)])
def test_equal_neighbours_are_one_peak(step):
    row, column = 3, 5
    twins = [(0, row, column, 2, 2, 2, 0, 0), (0, row + step[0], column + step[1], 2, 2, 2, 0, 0)]
    (found,) = find_boxes(maps(twins), 4)
    assert (found.scores > 0.5).sum() == 1
    assert found.boxes[0].tolist() == [4 * (column - 1), 8, 4 * (column + 1), 16]


def test_the_peaks_are_those_of_a_maximum_filter_where_values_differ():
    from skimage.feature import peak_local_max

    heat = np.random.default_rng(0).permutation(2 * 20 * 30).reshape(1, 2, 20, 30) / 100 - 6
    ones = np.ones((1, 2, 20, 30), np.float32)
    (found,) = find_boxes((heat.astype(np.float32), ones, 0 * ones), 1, limit=10_000)
    ours = {
        (int(label), round(float(box[1] + 0.5)), round(float(box[0] + 0.5)))
        for label, box in zip(found.labels, found.boxes, strict=True)
    }
    theirs = {
        (label, int(row), int(column))
        for label in range(2)
        for row, column in peak_local_max(heat[0, label], 1, -99, exclude_border=False)
    }
    assert ours == theirs


def test_the_best_come_first_and_boxes_without_extent_never():
    objects = [(0, 2 * i, 3, i - 2.0, 2, 2, 0, 0) for i in range(4)]
    (found,) = find_boxes(maps([*objects, (1, 0, 11, 9.0, -1, 2, 0, 0)]), 4, limit=3)
    assert found.scores == pytest.approx(1 / (1 + np.exp(-np.array([1.0, 0]))))


def test_detect_gives_boxes_in_the_image_by_score():
    session = Session((1, 2, 3, 2.0, 4, 2, 0.5, 0.25), (0, 15, 23, 1.0, 8, 8, 0, 0))
    image = np.full((64, 96, 3), 7, np.uint8)
    first, second = detect(session, image, threshold=0.7)
    assert first == DetectedBox(6, 5, 22, 13, pytest.approx(0.8808, abs=1e-4), 1, "dog")
    # The second reaches beyond the image and is cut there.
    assert (second.left, second.top, second.right, second.bottom) == (76, 44, 96, 64)
    assert (session.given[0] == image).all()
    assert [box.name for box in detect(session, image, threshold=0.8)] == ["dog"]
    assert detect(session, image, threshold=1.0) == []


def test_images_are_padded_below_and_right():
    session = Session((0, 2, 3, 2.0, 4, 2, 0, 0))
    image = np.full((40, 70, 3), 9, np.uint8)
    (box,) = detect(session, image)
    (given,) = session.given
    assert given.shape == (64, 96, 3)
    assert (given[:40, :70] == 9).all()
    assert not given[40:].any()
    assert not given[:, 70:].any()
    assert (box.left, box.right) == (4, 20)
    assert pad_image(image, 10) is image


def test_boxes_in_what_was_padded_are_left_out():
    session = Session((0, 14, 3, 2.0, 4, 4, 0, 0), (0, 2, 3, 1.0, 4, 4, 0, 0))
    boxes = detect(session, np.zeros((40, 96, 3), np.uint8))
    assert [box.top for box in boxes] == [0]


def test_images_are_scaled_to_what_the_network_was_trained_on():
    session = Session((0, 4, 6, 2.0, 4, 2, 0, 0), image_size=[64, 96])
    image = np.full((256, 384, 3), 50, np.uint8)
    (box,) = detect(session, image)
    assert session.given[0].shape == (64, 96, 3)
    assert (session.given[0] == 50).all()
    assert (box.left, box.top, box.right, box.bottom) == (64, 48, 128, 80)
    (box,) = detect(session, image, resize=False)
    assert session.given[1].shape == (256, 384, 3)
    assert (box.left, box.top, box.right, box.bottom) == (16, 12, 32, 20)
    detect(session, np.zeros((256, 256, 3), np.uint8))
    assert session.given[2].shape == (64, 64, 3)


def test_what_cannot_be_detected_in_is_named():
    session = Session(image_size=[64, 96])
    with pytest.raises(SessionError, match="too small"):
        detect(Session(), np.zeros((31, 96, 3), np.uint8))
    with pytest.raises(SessionError, match=r"image of 900x100 pixels is too narrow.*has 11"):
        detect(session, np.zeros((100, 900, 3), np.uint8))
    with pytest.raises(SessionError, match="one image of uint8"):
        detect(session, np.zeros((64, 96, 3), np.float32))
    with pytest.raises(SessionError, match="threshold must be"):
        detect(session, np.zeros((64, 96, 3), np.uint8), threshold=30)
    session.metadata["task"] = "segmentation"
    with pytest.raises(FormatError, match="made for 'segmentation', not for detection"):
        detect(session, np.zeros((64, 96, 3), np.uint8))
    for facts in ({"stride": "4"}, {"multiple": 0}, {"image_size": [4]}, {"image_size": 7}):
        with pytest.raises(FormatError, match="decode has no stride and sizes"):
            detect(Session(**facts), np.zeros((64, 96, 3), np.uint8))
