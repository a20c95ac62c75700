"""Pictures of landscapes: common levels, points that are missing, and what they refuse."""

import io

import numpy as np
import pytest
from PIL import Image

from signbit.plots import plot_landscape

POSITIONS = np.linspace(-1, 1, 11)
BOWL = 0.1 + POSITIONS**2 + POSITIONS[:, None] ** 2


def panel(loss=BOWL, name="a", note="smooth"):
    return {"name": name, "loss": loss, "at_centre": "loss 0.1, accuracy 90.0%", "note": note}


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def grey(png):
    return int((np.abs(pixels(png) - (0xD5, 0xD7, 0xDA)).max(2) < 2).sum())


def test_saved_file_is_the_returned_png(tmp_path):
    png = plot_landscape([panel()], POSITIONS, tmp_path / "l.png", "title")
    assert (tmp_path / "l.png").read_bytes() == png
    assert [path.name for path in tmp_path.iterdir()] == ["l.png"]


def test_every_part_shows():
    pictures = {
        plot_landscape([panel()], POSITIONS),
        plot_landscape([panel()], POSITIONS, title="title"),
        plot_landscape([panel(2 * BOWL)], POSITIONS),
        plot_landscape([panel(BOWL**2)], POSITIONS),
        plot_landscape([panel(name="b")], POSITIONS),
        plot_landscape([panel(note="rough")], POSITIONS),
        plot_landscape([panel()], 2 * POSITIONS),
    }
    assert len(pictures) == 7


def test_rows_are_y():
    lower = np.where(POSITIONS[:, None] < 0, 5.0, 0.1) * np.ones(11)  # high where y is negative
    image = pixels(plot_landscape([panel(lower)], POSITIONS))
    height, width, _ = image.shape
    strip = image[:, int(0.35 * width)]  # viridis: high losses are yellow, low ones violet
    yellow = np.flatnonzero((strip[:, 0] > 200) & (strip[:, 1] > 200) & (strip[:, 2] < 100))
    assert len(yellow)
    assert (yellow > height / 2).all()


def test_networks_share_their_colours():
    alone = pixels(plot_landscape([panel()], POSITIONS))
    beside = pixels(plot_landscape([panel(), panel(100 * BOWL)], POSITIONS))

    def yellow(image):
        return ((image[..., 0] > 200) & (image[..., 1] > 200) & (image[..., 2] < 100)).sum(0)

    assert beside.shape[1] > 1.3 * alone.shape[1]
    # Of one network alone the corners are the highest there is, beside a higher one they are not.
    assert yellow(alone)[: alone.shape[1] // 2].any()
    assert not yellow(beside)[: beside.shape[1] // 3].any()


@pytest.mark.filterwarnings("error")
def test_a_network_between_two_levels_has_no_line():
    assert plot_landscape([panel(100 * BOWL), panel(5 + 0.01 * BOWL, name="b")], POSITIONS)


def test_many_networks_stand_in_rows():
    four, five = (pixels(plot_landscape([panel()] * n, POSITIONS)) for n in (4, 5))
    assert five.shape[1] == four.shape[1]
    assert five.shape[0] > 1.8 * four.shape[0]


def test_points_that_are_not_finite_are_grey():
    spoilt = BOWL.copy()
    spoilt[:3, :3] = np.nan
    spoilt[8, 8] = np.inf
    whole, partly, nothing = (
        grey(plot_landscape([panel(loss)], POSITIONS))
        for loss in (BOWL, spoilt, np.full_like(BOWL, np.nan))
    )
    assert whole < 100 < 1000 < partly < nothing


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("loss", [0.0, 0.3, 1e30])
def test_flat_landscapes_can_be_drawn(loss):
    assert plot_landscape([panel(np.full_like(BOWL, loss))], POSITIONS)


def test_losses_of_zero_can_be_drawn():
    assert plot_landscape([panel(np.where(BOWL < 0.3, 0.0, BOWL))], POSITIONS)


def test_long_names_show_their_end():
    one, other = (plot_landscape([panel(name="/x" * 90 + end)], POSITIONS) for end in "ab")
    assert one != other
    assert pixels(one).shape == pixels(plot_landscape([panel()], POSITIONS)).shape


def test_names_are_no_formulas():
    assert plot_landscape([panel(name="runs/$one_{$")], POSITIONS)


def test_what_is_refused():
    with pytest.raises(ValueError, match="no landscape"):
        plot_landscape([], POSITIONS)
    with pytest.raises(ValueError, match=r"b: losses of shape \(11, 10\) at 11 positions"):
        plot_landscape([panel(), panel(BOWL[:, 1:], name="b")], POSITIONS)
