"""Enlarging images with a compiled super-resolution network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from signbit.errors import FormatError, SessionError
from signbit.runtime.outputs import real_outputs
from signbit.runtime.session import Session


def enlarge(session: Session, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarge a picture.

    Args:
        session: of a file made for super-resolution.
        image: uint8 [H, W, 3], of any size; [H, W] for a grey one.

    Returns:
        uint8 [scale * H, scale * W, 3]; ``scale`` is what the network was trained for.

    Raises:
        SessionError: the file is another task's, or the image is no picture.
        FormatError: the file does not say how its outputs become pixels.
    """
    scale, mean, std = decoding(session.metadata, str(session))
    image = np.asarray(image)
    if image.dtype == np.uint8 and image.ndim == 2:
        image = np.repeat(image[..., None], 3, 2)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise SessionError(
            f"{session}: expected uint8 pixels (H, W, 3) or (H, W), got {image.dtype} {image.shape}"
        )
    output = real_outputs(session, image)[0]
    height, width, _ = image.shape
    if output.shape != (1, 3, scale * height, scale * width):
        raise SessionError(
            f"{session}: the file says that it enlarges {scale} times, but an image of {height}x"
            f"{width} pixels became {output.shape}: compile it again from its run"
        )
    return output_pixels(output[0], mean, std)


def output_pixels(
    output: NDArray[np.float32], mean: NDArray[np.float32], std: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """The picture that a network gave: float32 [3, H, W], normalised, to uint8 [H, W, 3].

    ``rint(clip((y * std + mean) * 255, 0, 255))``; NaN becomes 0. ``mean`` and ``std`` are float32
    [3], in units of [0, 1].
    """
    scale = (std * np.float32(255))[:, None, None]
    shift = (mean * np.float32(255))[:, None, None]
    values = np.nan_to_num(output * scale + shift, nan=0.0, posinf=255.0, neginf=0.0)
    return np.ascontiguousarray(
        np.rint(np.clip(values, 0, 255)).astype(np.uint8).transpose(1, 2, 0)
    )


def decoding(
    metadata: Mapping[str, Any], name: str
) -> tuple[int, NDArray[np.float32], NDArray[np.float32]]:
    """(scale, mean [3], std [3]) that the metadata of the file ``name`` say of its outputs.

    Raises:
        SessionError: the file is not for super-resolution.
        FormatError: it is, but says nothing of the kind.
    """
    task = metadata.get("task", "classification")
    if task != "superresolution":
        raise SessionError(f"{name}: made for {task}, not for super-resolution")
    facts = metadata.get("decode")
    facts = facts if isinstance(facts, Mapping) else {}
    try:
        scale = facts["scale"]
        mean, std = (np.asarray(facts[name], np.float32) for name in ("mean", "std"))
        fits = type(scale) is int and scale >= 1 and mean.shape == std.shape == (3,)
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits or not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise FormatError(
            f"{name}: header: __metadata__.decode has no scale with mean and std of three "
            "channels: compile the network again from its run"
        )
    return scale, mean, std
