"""Boxes are drawn where they are, in their classes' colours, on an image large enough to read."""

import io

import numpy as np
import pytest
from PIL import Image, ImageColor

from signbit.plots import plot_boxes
from signbit.plots.boxes import _COLOURS


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def coloured(picture, colour):
    """Rows and columns of the pixels of a colour, as (top, bottom, left, right)."""
    rows, columns = np.nonzero(np.abs(picture - ImageColor.getrgb(colour)).sum(2) < 60)
    return rows.min(), rows.max(), columns.min(), columns.max()


@pytest.mark.parametrize("size", [(48, 64), (480, 640), (300, 100)])
def test_lines_stand_where_the_boxes_are(size):
    height, width = size
    image = np.full((height, width, 3), 255, np.uint8)
    image[0], image[-1], image[:, 0], image[:, -1] = 0, 0, 0, 0  # shows where the image lies
    box = (0.25 * width, 0.25 * height, 0.75 * width, 0.5 * height)
    picture = pixels(plot_boxes(image, [box], [1], None, ["a", "b"]))
    assert max(picture.shape) > 700
    rows, columns = np.nonzero(picture.sum(2) < 60)
    # the frame's black, without the legend's words below it
    top, left, right = rows.min(), columns.min(), columns.max()
    scale = (right + 1 - left) / width
    legend = top + round(scale * height) + 5
    first, last, begin, end = coloured(picture[:legend], _COLOURS[1])
    wanted = (
        top + scale * box[1],
        top + scale * box[3],
        left + scale * box[0],
        left + scale * box[2],
    )
    assert np.abs(np.subtract((first, last, begin, end), wanted)).max() < 4
    assert not (np.abs(picture - ImageColor.getrgb(_COLOURS[0])).sum(2) < 60).any()


def test_scores_and_legend_take_room_and_grey_images_work(tmp_path):
    image = np.full((60, 80, 1), 90, np.uint8)
    boxes, labels = [(10, 10, 40, 40), (30, 20, 70, 50)], [0, 12]
    names = [f"class{i}" for i in range(13)]
    without = pixels(plot_boxes(image, boxes, labels, None, names))
    png = plot_boxes(image, boxes, labels, [0.9, 0.31], names, tmp_path / "boxes.png")
    assert (tmp_path / "boxes.png").read_bytes() == png
    assert not np.array_equal(without, pixels(png))
    nothing = pixels(plot_boxes(image, [], [], [], names))
    assert nothing.shape[0] < without.shape[0]
    crowd = pixels(plot_boxes(image, [(1, 1, 9, 9)] * 13, range(13), None, names))
    assert crowd.shape[0] > without.shape[0]


def test_counts_that_differ_are_refused():
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="1 boxes, 2 labels and no scores"):
        plot_boxes(image, [(0, 0, 4, 4)], [0, 1], None, ["a", "b"])
    with pytest.raises(ValueError, match="1 boxes, 1 labels and 0 scores"):
        plot_boxes(image, [(0, 0, 4, 4)], [0], [], ["a", "b"])
