"""Pictures of networks on accelerators."""

from __future__ import annotations

from pathlib import Path

import pytest

from signbit.plots.hardware import plot_accuracy_cycles, plot_sweep, plot_timeline

PNG = b"\x89PNG"


def layers(count: int) -> list[dict]:
    return [
        {"layer": f"conv{i}", "compute": (i, i + 1), "vector": (i + 1, i + 2), "memory": (i, i)}
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [1, 150])
def test_timeline(tmp_path: Path, count: int) -> None:
    path = tmp_path / "timeline.png"
    png = plot_timeline(layers(count), path, title="net")
    assert png.startswith(PNG)
    assert path.read_bytes() == png


def test_accuracy_against_cycles(tmp_path: Path) -> None:
    points = [
        {"label": name, "cycles": cycles, "accuracy": accuracy}
        for name, cycles, accuracy in (("a", 1e6, 60.0), ("b", 2e6, 55.0), ("c", 9e6, 70.0))
    ]
    path = tmp_path / "pareto.png"
    assert plot_accuracy_cycles(points, path).startswith(PNG)
    assert path.exists()


def test_sweep(tmp_path: Path) -> None:
    designs = [
        {
            "dataflow": flow, "rows": side, "columns": side, "binary_lanes": lanes,
            "cycles": 1000 // side, "ratios": {"int8": lanes / 4, "other": 1.0},
        }
        for flow in ("weight_stationary", "output_stationary")
        for side in (4, 8)
        for lanes in (8, 16)
    ]  # fmt: skip
    with_rivals = plot_sweep(designs, tmp_path / "sweep.png")
    alone = plot_sweep([design | {"ratios": {}} for design in designs])
    assert with_rivals.startswith(PNG)
    assert alone.startswith(PNG)
    assert len(with_rivals) > len(alone)


@pytest.mark.parametrize("plot", [plot_timeline, plot_accuracy_cycles, plot_sweep])
def test_nothing_to_draw(plot) -> None:
    with pytest.raises(ValueError, match="to draw"):
        plot([])
