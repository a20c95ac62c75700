"""The picture of ranked teachers: every part shows."""

import pytest

from signbit.plots import plot_teachers

ROWS = [
    {"name": "a", "score": 1.0, "parameters": 10**5, "cross_entropy": 0.5, "accuracy": 0.8},
    {"name": "b", "score": 3.0, "parameters": 10**7, "cross_entropy": 0.3, "accuracy": 0.9},
]


def test_saved_file_is_the_returned_png(tmp_path):
    assert plot_teachers(ROWS, tmp_path / "t.png") == (tmp_path / "t.png").read_bytes()


def test_every_part_shows():
    pictures = {
        plot_teachers(ROWS),
        plot_teachers(ROWS[::-1]),
        plot_teachers(ROWS, title="title"),
        plot_teachers(ROWS, score_name="knowledge complexity"),
        plot_teachers(ROWS, note="a reconstruction"),
        *(
            plot_teachers([ROWS[0], {**ROWS[1], field: value}])
            for field, value in {
                "name": "c", "score": 2.0, "parameters": 10**6, "cross_entropy": 0.4,
                "accuracy": 0.95,
            }.items()
        ),
    }  # fmt: skip
    assert len(pictures) == 10


def test_a_teacher_without_parameters_can_be_drawn():
    assert plot_teachers([{**ROWS[0], "parameters": 0}]).startswith(b"\x89PNG")


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="no teacher"):
        plot_teachers([])
