"""Where the time goes: one bar an operation of a compiled network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from signbit.plots.figure import BLUE, GREEN, GREY, ORANGE, finish, new_figure

_PALETTE = (
    BLUE, ORANGE, GREEN, GREY, "#8a5fb0", "#b0485c", "#4aa3a8", "#a38b4a", "#1f2d5c", "#f2b5a7",
    "#a9d18e", "#d46fb5", "#7fb2e5", "#6b4226", "#c9c23d", "#3b3b3b",
)  # fmt: skip


def plot_profile(
    profile: Sequence[Mapping[str, Any]], path: str | Path | None = None, title: str = ""
) -> bytes:
    """Draw the time of every operation.

    Args:
        profile: rows of ``Session.profile``: ``name``, ``op``, ``ms`` and ``kernel`` are used, and
            ``floor_ms`` where it is there: the least time at the CPU's peaks, a black mark.
        path: where to save the PNG, if anywhere.
        title: written above.

    Returns:
        The PNG's bytes; colours stand for kernels, the legend has each one's share of the time.

    Raises:
        ValueError: there is no row.
    """
    if not profile:
        raise ValueError("no operation to draw")
    totals: dict[str, float] = {}
    for row in profile:
        kernel = str(row["kernel"])
        totals[kernel] = totals.get(kernel, 0.0) + row["ms"]
    kernels = sorted(totals, key=lambda kernel: -totals[kernel])
    colours = {kernel: _PALETTE[i % len(_PALETTE)] for i, kernel in enumerate(kernels)}
    figure = new_figure(9, 1.2 + 0.2 * len(profile))
    axes = figure.subplots()
    axes.barh(
        range(len(profile)),
        [row["ms"] for row in profile],
        color=[colours[str(row["kernel"])] for row in profile],
    )
    axes.set_yticks(range(len(profile)), [_label(row) for row in profile], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.grid(axis="x", alpha=0.25)
    floors = [(row["floor_ms"], y) for y, row in enumerate(profile) if row.get("floor_ms")]
    marks = []
    if floors:
        style = {"marker": "|", "color": "black", "s": 45, "linewidths": 1.4}
        marks = [axes.scatter(*zip(*floors, strict=True), label="at the CPU's peak", **style)]
    total = sum(totals.values()) or 1.0
    handles = [
        axes.barh(0, 0, color=colours[kernel], label=f"{kernel}  {totals[kernel] / total:.0%}")
        for kernel in kernels
    ]
    axes.legend(handles=[*handles, *marks], frameon=False, fontsize=7)
    axes.set_title(title or f"{sum(totals.values()):.3f} ms in {len(profile)} operations")
    return finish(figure, path)


def _label(row: Mapping[str, Any]) -> str:
    """The layer; a copy into another layout says so."""
    return f"{row['name']} (repack)" if row["op"] == "repack" else str(row["name"])
