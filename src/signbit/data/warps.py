"""Two views of a photograph and the homography between them: what matching learns from.

A homography is a 3x3 matrix that maps (x, y, 1), x to the right and y down, both in pixels with the
first pixel's centre at 0, of the first image to the second one's, up to a factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_LIGHTNESS = np.float32([0.299, 0.587, 0.114])  # BT.601, as pillow makes grey images
_ALIASED = 1.25  # pixels of a photograph a pixel of a view, above which it is blurred first


@dataclass(frozen=True)
class Views:
    """How two views of a photograph are drawn; every change is uniform between its bounds.

    Attributes:
        zoom: by how much the first view enlarges the photograph.
        scale: by how much the second view is larger or smaller than the first: 1/scale to scale.
        rotation: of the second view against the first, in degrees to either side.
        perspective: how far each corner of the second view is moved, as a share of half a side.
        shift: how far its centre is moved, likewise.
        flip, turn: mirror the photograph in one half of the draws; turn it by quarters.
        brightness, contrast: changes by at most that share, each view's own.
        noise: standard deviation of the most Gaussian noise that a view may have, as a share of the
            range of pixels.
        blur: standard deviation of the widest Gaussian blur, in pixels.
        grey: share of the pairs that are grey.
    """

    zoom: tuple[float, float] = (1.0, 1.0)
    scale: float = 1.4
    rotation: float = 30.0
    perspective: float = 0.25
    shift: float = 0.25
    flip: bool = False
    turn: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    grey: float = 0.0

    def draw(
        self, photograph: NDArray[np.uint8], size: tuple[int, int], generator: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Two views: uint8 [2, H, W, 3] and the homography from the first to the second [3, 3].

        Args:
            photograph: uint8 [H', W', 3], of any size; one smaller than a view is enlarged.
            size: (H, W) of the views.
            generator: draws everything, a fixed number of times.
        """
        if self.flip and generator.random() < 0.5:
            photograph = photograph[:, ::-1]
        if self.turn:
            photograph = np.rot90(photograph, generator.integers(4))
        first, second = self._corners(photograph.shape[:2], size, generator)
        both = [_view(photograph, corners, size) for corners in (first, second)]
        if generator.random() < self.grey:
            both = [_grey(view) for view in both]
        views = np.stack([self._expose(view, generator) for view in both])
        to_first, to_second = (_from_view(corners, size) for corners in (first, second))
        homography = np.linalg.inv(to_second) @ to_first
        return views, homography / homography[2, 2]

    def _corners(
        self, whole: tuple[int, int], size: tuple[int, int], generator: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the corners of the views are in the photograph: two float64 [4, 2] of (x, y)."""
        half = (np.float64(size[::-1]) - 1) / 2
        room = (np.float64(whole[::-1]) - 1) / 2
        step = min(1 / generator.uniform(*self.zoom), float((room / half).min()))
        free = np.maximum(room - step * half, 0)
        centre = room + generator.uniform(-1, 1, 2) * free
        square = np.float64([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        angle = np.deg2rad(generator.uniform(-self.rotation, self.rotation))
        factor = self.scale ** generator.uniform(-1, 1)
        moved = square + generator.uniform(-1, 1, (4, 2)) * self.perspective
        turn = np.float64([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shift = generator.uniform(-1, 1, 2) * self.shift
        first = centre + step * half * square
        second = centre + step * (factor * (moved * half) @ turn.T + shift * half)
        return first, second

    def _expose(self, view: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
        """A view with light, blur and noise of its own."""
        contrast = 1 + self.contrast * generator.uniform(-1, 1)
        brightness = self.brightness * generator.uniform(-1, 1)
        sigma = self.blur * generator.random()
        noise = self.noise * generator.random()
        seed = generator.integers(2**63)
        if sigma > 0.3:  # a narrower one would change nothing that a byte can hold
            view = cv2.GaussianBlur(view, (0, 0), sigma)
        middle = view.mean()
        table = (np.arange(256) - middle) * contrast + middle + 255 * brightness
        view = cv2.LUT(view, np.clip(np.rint(table), 0, 255).astype(np.uint8))
        if noise:
            drawn = np.random.default_rng(seed).standard_normal(view.shape, np.float32)
            view = cv2.add(view, drawn * np.float32(255 * noise), dtype=cv2.CV_8U)
        return view


def warp_points(
    points: NDArray[np.floating], homography: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Points (x, y) [N, 2] of the first image in the second one: float64 [N, 2].

    Points on the horizon or behind it are infinitely far: ``inf``.
    """
    mapped = np.c_[points, np.ones(len(points))] @ np.asarray(homography, np.float64).T
    depth = mapped[:, 2:]
    return np.where(depth > 1e-9, mapped[:, :2] / np.where(depth > 1e-9, depth, 1), np.inf)


def resize_longer(
    image: NDArray[np.uint8], longer: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """An image whose longer side is at most ``longer`` pixels, and the homography to it [3, 3].

    Smaller images stay as they are. Reduced by averaging areas.
    """
    height, width = image.shape[:2]
    if max(height, width) <= longer:
        return image, np.eye(3)
    factor = longer / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
    x, y = size[0] / width, size[1] / height
    # A pixel's centre is at a whole number, its edges are half a pixel away.
    return resized, np.float64([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def _from_view(corners: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """The homography from a view to the photograph that has its corners there."""
    height, width = size
    own = np.float32([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]])
    return cv2.getPerspectiveTransform(own, corners.astype(np.float32))


def _view(
    photograph: NDArray[np.uint8], corners: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.uint8]:
    height, width = size
    step = np.linalg.norm(np.roll(corners, -1, 0) - corners, axis=1).mean() / (
        (height + width - 2) / 2
    )
    source = np.ascontiguousarray(photograph)
    if step > _ALIASED:
        source = cv2.GaussianBlur(source, (0, 0), 0.4 * step)
    return cv2.warpPerspective(
        source,
        _from_view(corners, size),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def _grey(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = np.rint(view.astype(np.float32) @ _LIGHTNESS).astype(np.uint8)
    return np.repeat(grey[..., None], 3, 2)
