"""How long whole networks take: one bar a contender, one panel a number of threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from signbit.plots.figure import BLUE, GREY, ORANGE, finish, new_figure


def plot_speed(
    rows: Sequence[Mapping[str, Any]], path: str | Path | None = None, title: str = ""
) -> bytes:
    """Draw the medians of a benchmark, with quartiles as whiskers.

    Args:
        rows: ``contender``, ``threads``, ``median_ms``, ``q1_ms``, ``q3_ms`` of each; contenders
            with "signbit" in their name stand out, those with "int8" come second.
        path: where to save the PNG, if anywhere.
        title: written above.

    Returns:
        The PNG's bytes. Panels share their scale.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError("no contender to draw")
    counts = sorted({int(row["threads"]) for row in rows})
    longest = max(sum(int(row["threads"]) == count for row in rows) for count in counts)
    figure = new_figure(4.6 * len(counts) + 2.2, 0.9 + 0.34 * longest)
    panels = figure.subplots(1, len(counts), sharex=True, sharey=True, squeeze=False)[0]
    for axes, count in zip(panels, counts, strict=True):
        chosen = [row for row in rows if int(row["threads"]) == count]
        names = [str(row["contender"]) for row in chosen]
        medians = [float(row["median_ms"]) for row in chosen]
        below = [m - float(row["q1_ms"]) for m, row in zip(medians, chosen, strict=True)]
        above = [float(row["q3_ms"]) - m for m, row in zip(medians, chosen, strict=True)]
        colours = [
            BLUE if "signbit" in name else ORANGE if "int8" in name else GREY for name in names
        ]
        axes.barh(names, medians, xerr=(below, above), color=colours, error_kw={"alpha": 0.5})
        for y, median in enumerate(medians):
            axes.annotate(
                f"{median:.1f}", (median, y), (6, 0), textcoords="offset points", va="center"
            )
        axes.set_xlabel("ms an image" if count == counts[0] else "ms")
        axes.set_title(f"{count} thread{'s' if count > 1 else ''}", fontsize=10)
        axes.grid(axis="x", alpha=0.25)
        axes.margins(x=0.12)
    panels[0].invert_yaxis()
    if title:
        figure.suptitle(title, fontsize=11)
    return finish(figure, path)
