"""``signbit run`` for segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from signbit.errors import SessionError, SignbitError

if TYPE_CHECKING:
    from signbit.runtime import Session


def run_segmentation(
    session: Session, inputs: list[tuple[str, NDArray[np.uint8]]], output: Path
) -> list[dict[str, Any]]:
    """Find the class of every pixel; of each picture write an overlay, and the mask itself.

    Args:
        session: of a file made for segmentation.
        inputs: names and uint8 [H, W, C].
        output: folder for the overlays; masks of class indices go into ``masks`` below it.

    Returns:
        For each input: ``input``, ``picture`` and ``mask`` (the files written), and ``classes``,
        the share of the pixels by name of every class that has some.

    Raises:
        SignbitError: an image cannot be given to the network; names it.
    """
    from PIL import Image

    from signbit.plots import plot_mask
    from signbit.plots.masks import class_shares
    from signbit.runtime import segment
    from signbit.training.files import write_atomically

    names = session.metadata.get("class_names") or []
    folder = output / "masks"
    folder.mkdir(parents=True, exist_ok=True)
    stems = [Path(name).stem for name, _ in inputs]
    found: list[dict[str, Any]] = []
    for index, (name, image) in enumerate(inputs):
        try:
            mask = segment(session, image)
        except SessionError as error:
            raise SignbitError(f"{name}: {error}") from error
        # two folders may hold pictures of one name
        stem = stems[index] if stems.count(stems[index]) == 1 else f"{stems[index]}-{index + 1}"
        picture, indices = output / f"{stem}.png", folder / f"{stem}.png"
        called = [str(n) for n in names] or [str(i) for i in range(int(mask.max()) + 1)]
        plot_mask(image, mask, called, picture)
        write_atomically(indices, lambda file, mask=mask: Image.fromarray(mask).save(file, "PNG"))
        shares = class_shares(mask, len(called))
        found.append(
            {
                "input": name,
                "picture": str(picture),
                "mask": str(indices),
                "classes": {called[i]: round(float(shares[i]), 5) for i in np.flatnonzero(shares)},
            }
        )
    return found
