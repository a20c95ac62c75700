"""Candidates for teachers: their score, and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from signbit.plots.figure import BLUE, GREY, ORANGE, finish, new_figure


def plot_teachers(
    rows: Sequence[Mapping[str, Any]],
    path: str | Path | None = None,
    title: str = "",
    *,
    score_name: str = "score",
    note: str = "",
) -> bytes:
    """Draw the scores of teachers as bars, and beside them cross-entropy over parameters.

    Args:
        rows: ``name``, ``score``, ``parameters``, ``cross_entropy`` (nats) and ``accuracy`` of
            each, drawn from the top down.
        path: where to save the PNG, if anywhere.
        title: written above.
        score_name: what the bars show.
        note: written below.

    Returns:
        The PNG's bytes.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError("no teacher to draw")
    figure = new_figure(10, 2.6 + 0.32 * max(len(rows), 4))
    bars, points = figure.subplots(1, 2)
    names = [str(row["name"]) for row in rows]
    places = range(len(rows))
    drawn = bars.barh(places, [row["score"] for row in rows], color=BLUE, height=0.6)
    bars.bar_label(drawn, [f"{row['score']:.3g}" for row in rows], padding=3, fontsize=8)
    bars.set_yticks(places, names, fontsize=8)
    bars.invert_yaxis()
    bars.margins(x=0.15)
    bars.set_xlabel(score_name)
    bars.grid(axis="x", alpha=0.25)
    millions = [row["parameters"] / 1e6 for row in rows]
    losses = [row["cross_entropy"] for row in rows]
    points.scatter(millions, losses, color=ORANGE, zorder=3)
    middle = sorted(millions)[len(millions) // 2]
    for row, x, y in zip(rows, millions, losses, strict=True):
        to_the_left = x >= middle and len(rows) > 1  # words stay within the axes
        points.annotate(
            f"{row['name']} ({row['accuracy']:.1%})",
            (x, y),
            xytext=(-5 if to_the_left else 5, 4),
            textcoords="offset points",
            ha="right" if to_the_left else "left",
            fontsize=7,
        )
    if all(millions):
        points.set_xscale("log")
    points.margins(0.2)
    points.set_xlabel("parameters (millions)")
    points.set_ylabel("cross-entropy (nats)")
    points.grid(alpha=0.25)
    if title:
        figure.suptitle(title, fontsize=10)
    if note:
        figure.supxlabel(note, fontsize=7, color=GREY, wrap=True)
    return finish(figure, path)
