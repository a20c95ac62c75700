"""Pictures: what they show, that they are whole files, and what they refuse."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from signbit.plots import (
    plot_comparison,
    plot_curves,
    plot_pareto,
    plot_profile,
    plot_roofline,
    plot_samples,
    plot_speed,
    render_report,
)
from signbit.plots.figure import finish, new_figure
from signbit.plots.pareto import front_of

HISTORY = [
    {
        "epoch": i + 1, "stage": "a" if i < 2 else "b", "lr": 1e-3 / (i + 1),
        "train_loss": 2 - i / 5, "train_accuracy": i / 5,
        "val_loss": 2.1 - i / 5, "val_accuracy": i / 6,
    }
    for i in range(4)
]  # fmt: skip
PROFILE = [
    {
        "name": f"stages.{i}.conv", "op": "conv_b1" if i % 2 else "repack", "ms": 0.1 * (i + 1),
        "kernel": "bconv" if i % 2 else "q8",
    }
    for i in range(6)
]  # fmt: skip
STEPS = [
    {"name": name, "ms": ms, "bytes": size, "macs_b1": binary, "macs_q8": eight}
    for name, ms, size, binary, eight in (
        ("input", 0.2, 0, 0, 0),
        ("stem.0", 4.0, 400_000, 0, 100_000_000),
        *((f"stages.{i}.conv", 0.3, 100_000 << i, 100_000_000, 0) for i in range(4)),
        ("skipped", 0.0, 1000, 1000, 0),
    )
]
PEAKS = {
    "look_up_gmacs": 800.0, "dot_gmacs": 80.0, "word_gmacs": 0.0,
    "tile_gmacs": 0.0,
    "copy_l2_gbs": 90.0, "copy_memory_gbs": 7.0,
}  # fmt: skip


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_saved_file_is_the_returned_png(tmp_path):
    png = plot_curves(HISTORY, tmp_path / "curves.png", "title")
    assert (tmp_path / "curves.png").read_bytes() == png
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]
    assert pixels(png).shape[1] > 800


def test_other_numbers_give_another_picture():
    other = [{**row, "val_accuracy": 0.9} for row in HISTORY]
    assert plot_curves(HISTORY) != plot_curves(other)
    slower = [{**PROFILE[0], "ms": 9.0}, *PROFILE[1:]]
    assert plot_profile(PROFILE) != plot_profile(slower)


def test_a_comparison_shows_mean_and_range(tmp_path):
    other = [{**row, "val_accuracy": row["val_accuracy"] / 2} for row in HISTORY[:3]]
    png = plot_comparison({"a": [HISTORY, other], "b": [HISTORY]}, tmp_path / "c.png", "title")
    assert (tmp_path / "c.png").read_bytes() == png
    assert png != plot_comparison({"a": [HISTORY, HISTORY], "b": [HISTORY]}, title="title")


def test_a_failed_picture_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.png"
    finish(new_figure(1, 1), path)
    before = path.read_bytes()
    with pytest.raises(KeyError):
        plot_curves([{"epoch": 1}], path)
    assert path.read_bytes() == before


def test_wrong_predictions_are_red():
    images = np.zeros((12, 8, 8, 1), np.uint8)
    names = [str(i) for i in range(10)]
    right = plot_samples(images, [1] * 12, [1] * 12, names)
    wrong = plot_samples(images, [1] * 12, [1] * 11 + [2], names)

    def red(png):
        colour = pixels(png).astype(int)
        return int(((colour[..., 0] - colour[..., 1]) > 80).sum())

    assert red(right) == 0
    assert red(wrong) > 10


def test_speed_has_a_panel_for_every_number_of_threads():
    rows = [
        {"contender": name, "threads": threads, "median_ms": 4, "q1_ms": 3, "q3_ms": 5}
        for name in ("a, signbit", "b int8", "c fp32")
        for threads in (1, 2)
    ]
    one = pixels(plot_speed([row for row in rows if row["threads"] == 1]))
    two = pixels(plot_speed(rows))
    assert two.shape[1] > 1.5 * one.shape[1]
    other = pixels(plot_speed([{**rows[0], "median_ms": 3.5}, *rows[1:]]))
    assert not np.array_equal(other, two)


def test_a_profile_marks_the_peak_where_it_is_known():
    known = [{**PROFILE[0], "floor_ms": 0.05}, {**PROFILE[1], "floor_ms": None}, *PROFILE[2:]]
    assert plot_profile(known) != plot_profile(PROFILE)
    assert plot_profile([{**row, "floor_ms": None} for row in PROFILE]) == plot_profile(PROFILE)


def test_a_roofline_shows_steps_and_roofs(tmp_path):
    png = plot_roofline(STEPS, PEAKS, tmp_path / "roof.png", "title")
    assert (tmp_path / "roof.png").read_bytes() == png
    assert pixels(png).shape[1] > 800
    faster = [{**step, "ms": step["ms"] / 2} for step in STEPS]
    others = {
        plot_roofline(faster, PEAKS),
        plot_roofline(STEPS, {**PEAKS, "dot_gmacs": 70.0}),
        plot_roofline(STEPS, PEAKS, threads=2),
        plot_roofline(STEPS[:2], PEAKS),  # of one kind alone
        png,
    }
    assert len(others) == 5


def test_a_roofline_of_many_steps_in_one_place():
    crowd = [{**STEPS[2], "name": f"layers.{i}.conv{j}"} for i in range(30) for j in range(12)]
    assert plot_roofline(crowd, PEAKS)
    assert plot_roofline([{**STEPS[1], "ms": 1e-6}], PEAKS)  # faster than its roof


def test_colour_images_and_short_rows():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    assert pixels(plot_samples(images, [0, 1, 0], [0, 1, 1], ["a", "b"])).size


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot_curves([]), "no epoch"),
        (lambda: plot_comparison({}), "no epoch"),
        (lambda: plot_comparison({"a": [HISTORY, []]}), "no epoch"),
        (lambda: plot_profile([]), "no operation"),
        (lambda: plot_speed([]), "no contender"),
        (lambda: plot_roofline(STEPS[:1], PEAKS), "no step with multiply-accumulates"),
        (lambda: plot_samples(np.zeros((0, 8, 8, 1), np.uint8), [], [], []), "0 images"),
        (lambda: plot_samples(np.zeros((2, 8, 8, 1), np.uint8), [0], [0, 0], ["a"]), "1 labels"),
    ],
)
def test_nothing_to_draw_is_an_error(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_report_is_one_file_with_its_pictures():
    png = plot_profile(PROFILE)
    page = render_report("A & B", "lead", [("size", "1 KiB", "<small>")], {"Time": (png, "note")})
    assert "A &amp; B" in page
    assert "&lt;small&gt;" in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 1
    assert sources[0].startswith("data:image/png;base64,")
    assert base64.b64decode(sources[0].partition(",")[2]) == png


def test_curves_of_a_task_without_scores_of_training_images():
    rows = [
        {k: v for k, v in row.items() if "accuracy" not in k} | {"val_miou": 0.3 + i / 10}
        for i, row in enumerate(HISTORY)
    ]
    assert plot_curves(rows) != plot_curves(HISTORY)
    assert plot_curves([{**row, "val_pixel": 1.0} for row in rows]) == plot_curves(rows)
    with pytest.raises(KeyError, match="train_loss"):
        plot_curves([{"epoch": 1, "val_loss": 1.0, "val_miou": 0.5, "stage": "a", "lr": 0.1}])


def test_pareto_front_is_what_none_beats(tmp_path):
    points = [
        {"label": "a", "kind": "binary", "ms": 1.0, "value": 0.5, "low": 0.4, "high": 0.6},
        {"label": "b", "kind": "8-bit", "ms": 3.0, "value": 0.7, "low": 0.6, "high": 0.8},
        {"label": "c", "kind": "float", "ms": 4.0, "value": 0.7, "low": 0.6, "high": 0.8},
        {"label": "d", "kind": "8-bit", "ms": 3.0, "value": 0.4, "low": 0.5, "high": 0.6},
    ]
    assert [point["label"] for point in front_of(points)] == ["a", "b"]
    png = plot_pareto(points, tmp_path / "pareto.png", metric="accuracy", title="t")
    assert png == (tmp_path / "pareto.png").read_bytes()
    assert png != plot_pareto(points[:3], metric="accuracy", title="t")
    with pytest.raises(ValueError, match="no network to draw"):
        plot_pareto([], metric="accuracy")
