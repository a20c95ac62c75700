"""``signbit run`` for detection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from signbit.errors import SessionError, SignbitError

if TYPE_CHECKING:
    from signbit.runtime import Session


def run_detection(
    session: Session, inputs: list[tuple[str, NDArray[np.uint8]]], output: Path
) -> list[dict[str, Any]]:
    """Find objects in pictures; of each write a copy with the boxes drawn.

    Args:
        session: of a file made for detection.
        inputs: names and uint8 [H, W, C].
        output: folder for the pictures.

    Returns:
        For each input: ``input``, ``picture`` (the file written) and ``boxes``, the best first,
        each with ``class``, ``score`` and ``box``: left, top, right and bottom in pixels.

    Raises:
        SignbitError: a picture that the network cannot take; names it.
    """
    from signbit.plots import plot_boxes
    from signbit.runtime import detect

    found: list[dict[str, Any]] = []
    stems = [Path(name).stem for name, _ in inputs]
    for index, (name, image) in enumerate(inputs):
        try:
            boxes = detect(session, image)
        except SessionError as error:
            raise SignbitError(f"{name}: {error}") from error
        # two folders may hold pictures of one name
        stem = stems[index] if stems.count(stems[index]) == 1 else f"{stems[index]}-{index + 1}"
        picture = output / f"{stem}-boxes.png"
        corners = [(box.left, box.top, box.right, box.bottom) for box in boxes]
        names = session.metadata.get("class_names") or [
            str(i) for i in range(1 + max((box.label for box in boxes), default=0))
        ]
        plot_boxes(
            image,
            corners,
            [box.label for box in boxes],
            [box.score for box in boxes],
            names,
            picture,
        )
        found.append(
            {
                "input": name,
                "picture": str(picture),
                "boxes": [
                    {
                        "class": box.name,
                        "score": round(box.score, 4),
                        "box": [round(value, 1) for value in corner],
                    }
                    for box, corner in zip(boxes, corners, strict=True)
                ],
            }
        )
    return found
