"""One network on many systolic arrays: sizes, lanes, vector units, dataflows.

All designs of a block are evaluated at once (:func:`signbit.hardware.systolic.evaluate`), so that a
thousand designs of a network of sixty layers take well under a second.

Imports NumPy only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from signbit.hardware.presets import PresetError
from signbit.hardware.systolic import Layers, SystolicArray, evaluate
from signbit.hardware.workload import Workload

_BLOCK = 64  # designs at once: arrays stay in the cache, and progress is seen


@dataclass(frozen=True)
class SweepPoint:
    """A network on a design.

    Attributes:
        array: the design.
        cycles: for one image; None where a layer does not fit.
        compute: of these, cycles in which the array is busy.
        vector: and the vector unit.
        memory: and the DRAM.
        utilisation: of the array while it computes.
        unfit: what does not fit, in words; None where all does.
    """

    array: SystolicArray
    cycles: int | None
    compute: int
    vector: int
    memory: int
    utilisation: float
    unfit: str | None


def designs(base: SystolicArray, **choices: Sequence[Any]) -> list[SystolicArray]:
    """All combinations of fields' values, on top of a design: the last field varies fastest.

    ``designs(array, rows=[8, 16], binary_lanes=[8, 16])`` are four. A field `size` sets rows and
    columns together. Names say what differs. Raises PresetError for an unknown field and for values
    that a design refuses.
    """
    known = {each.name for each in fields(base)} - {"name"} | {"size"}
    for name, values in choices.items():
        if name not in known:
            raise PresetError(
                f"{name} is not a field of a systolic array: {', '.join(sorted(known))}"
            )
        if not values:
            raise PresetError(f"{name}: no values to sweep over")
    found = []
    for values in itertools.product(*choices.values()):
        point = dict(zip(choices, values, strict=True))
        name = ",".join([base.name, *(f"{key}={value}" for key, value in point.items())])
        found.append(replace(base, name=name, **_spread(point)))
    return found


def _spread(point: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in point.items() if key != "size"}
    return {"rows": point["size"], "columns": point["size"]} | rest if "size" in point else rest


def sweep(
    workload: Workload,
    arrays: Sequence[SystolicArray],
    progress: Callable[[int, int], object] | None = None,
) -> list[SweepPoint]:
    """A network on every array, in their order.

    Designs that a layer does not fit are not an error here: their points say what does not fit.
    `progress` is called with the designs done and all of them.
    """
    layers = Layers(workload)
    points: list[SweepPoint] = []
    for start in range(0, len(arrays), _BLOCK):
        points += _block(layers, arrays[start : start + _BLOCK])
        if progress is not None:
            progress(len(points), len(arrays))
    return points


def _block(layers: Layers, arrays: Sequence[SystolicArray]) -> list[SweepPoint]:
    grid = evaluate(layers, arrays)
    compute, vector, memory, total = (
        part.sum(1) for part in (grid.compute, grid.vector, grid.memory, grid.total)
    )
    busy = (grid.utilisation * grid.compute).sum(1) / np.maximum(compute, 1)
    points = []
    for i, array in enumerate(arrays):
        unfit = grid.unfit(i)
        cycles = int(total[i]) if unfit is None else None
        parts = int(compute[i]), int(vector[i]), int(memory[i])
        points.append(SweepPoint(array, cycles, *parts, float(busy[i]), unfit))
    return points
