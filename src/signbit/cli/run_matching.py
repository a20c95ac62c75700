"""``signbit run`` for matching."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from signbit.errors import SessionError, SignbitError

if TYPE_CHECKING:
    from signbit.runtime import Session

_RIGHT = 5.0  # pixels from where a known homography puts a point, as in the metric mma5


def run_matching(
    session: Session, inputs: list[tuple[str, NDArray[np.uint8]]], output: Path
) -> list[dict[str, Any]]:
    """Match pictures two by two, and draw each pair with lines between what was matched.

    Where the first is called ``1`` and a file ``H_1_<name of the second>.txt`` lies beside it, as
    in HPatches, lines are green or red: within 5 pixels of that homography, or not.

    Args:
        session: of a file made for matching.
        inputs: names and uint8 [H, W, 3], the pairs in a row.
        output: folder for the pictures.

    Returns:
        For each pair: ``input`` (both names), ``picture`` (the file written), ``first_keypoints``
        and ``second_keypoints`` (how many were found), ``matches`` ([x1, y1, x2, y2] in pixels)
        and, with a known homography, ``right``: how many are.

    Raises:
        SignbitError: an odd number of pictures, or one that cannot be described; names it.
        DataError: a homography's file is not 3x3 numbers.
    """
    from signbit.plots import plot_matches
    from signbit.runtime import match

    if not inputs or len(inputs) % 2:
        raise SignbitError(
            f"matching takes pictures two by two, got {len(inputs)}: "
            + (f"{inputs[-1][0]} has no partner" if inputs else "give at least two")
        )
    results = []
    for (name, first), (other, second) in zip(inputs[::2], inputs[1::2], strict=True):
        a, b = _described(session, name, first), _described(session, other, second)
        pairs = match(a.descriptors, b.descriptors)
        origin, found = a.points[pairs[:, 0]], b.points[pairs[:, 1]]
        right = _right(name, other, origin, found)
        picture = output / f"{len(results) + 1}-{Path(name).stem}-{Path(other).stem}.png"
        plot_matches(first, second, origin, found, picture, right=right)
        result = {
            "input": f"{name} {other}",
            "picture": str(picture),
            "first_keypoints": len(a),
            "second_keypoints": len(b),
            "matches": np.c_[origin, found].round(2).tolist(),
        }
        if right is not None:
            result["right"] = int(right.sum())
        results.append(result)
    return results


def _described(session: Session, name: str, image: NDArray[np.uint8]) -> Any:
    from signbit.runtime import describe

    try:
        return describe(session, image)
    except SessionError as error:
        raise SignbitError(f"{name}: {error}") from error


def _right(
    name: str, other: str, origin: NDArray[np.float32], found: NDArray[np.float32]
) -> NDArray[np.bool_] | None:
    """Which matches a homography beside the pictures confirms; None where there is none."""
    first, second = Path(name), Path(other)
    if first.stem != "1" or first.parent != second.parent:
        return None
    files = [first.parent / f"H_1_{second.stem}{suffix}" for suffix in (".txt", "")]
    file = next((f for f in files if f.is_file()), None)
    if file is None:
        return None
    from signbit.data.files import DataFile
    from signbit.data.pairs import read_homography
    from signbit.data.warps import warp_points

    matrix = read_homography(DataFile(file.name, file, 0, file.stat().st_size, False))
    return np.linalg.norm(warp_points(origin, matrix) - found, axis=1) <= _RIGHT
