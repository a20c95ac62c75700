"""One way to make a picture and one to save it: the Agg canvas, no global state, no half files."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#2f6db3", "#d9822b", "#3f9b5f", "#8a8f98"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, drawn without any window system."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def finish(figure: Figure, path: str | Path | None) -> bytes:
    """The PNG's bytes; with ``path``, also saved there, under a temporary name first."""
    png = to_png(figure)
    if path is not None:
        path = Path(path)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_bytes(png)
        temporary.replace(path)
    return png
