"""``signbit run`` for super-resolution."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from signbit.errors import SessionError, SignbitError

if TYPE_CHECKING:
    from signbit.runtime import Session


def run_superresolution(
    session: Session, inputs: list[tuple[str, NDArray[np.uint8]]], output: Path
) -> list[dict[str, Any]]:
    """Enlarge pictures; of each write the result, and a comparison with simpler enlargements.

    Args:
        session: of a file made for super-resolution.
        inputs: names and uint8 [H, W, 3].
        output: folder for the pictures.

    Returns:
        For each input: ``input``, ``enlarged`` and ``comparison`` (the files written), ``scale``,
        ``width`` and ``height`` of the result.

    Raises:
        SignbitError: an image cannot be enlarged; names it.
    """
    from PIL import Image

    from signbit.plots import plot_enlargement
    from signbit.runtime import enlarge
    from signbit.training.files import write_atomically

    found: list[dict[str, Any]] = []
    stems = [Path(name).stem for name, _ in inputs]
    for index, (name, image) in enumerate(inputs):
        try:
            enlarged = enlarge(session, image)
        except SessionError as error:
            raise SignbitError(f"{name}: {error}") from error
        # two folders may hold pictures of one name
        stem = stems[index] if stems.count(stems[index]) == 1 else f"{stems[index]}-{index + 1}"
        scale = enlarged.shape[0] // image.shape[0]
        picture, comparison = output / f"{stem}-x{scale}.png", output / f"{stem}-comparison.png"
        png = io.BytesIO()
        Image.fromarray(enlarged).save(png, "PNG")
        write_atomically(picture, lambda file, data=png: file.write(data.getvalue()))
        plot_enlargement(image, enlarged, comparison)
        found.append(
            {
                "input": name,
                "enlarged": str(picture),
                "comparison": str(comparison),
                "scale": scale,
                "width": enlarged.shape[1],
                "height": enlarged.shape[0],
            }
        )
    return found
