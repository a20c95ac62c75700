"""A network's outputs as real numbers, whatever the program computes with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from signbit.runtime.session import Session


def real_outputs(
    session: Session | Callable[..., Any], pixels: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], ...]:
    """Run a session; every output in float32, integers times the scale that the file gives them.

    Anything that is called as a session is will do; without scales its outputs are real.
    """
    outputs = session(np.ascontiguousarray(pixels))
    several = outputs if isinstance(outputs, tuple) else (outputs,)
    scales = getattr(session, "output_scales", [1.0] * len(several))
    return tuple(
        y if scale == 1.0 else (y * np.float32(scale)).astype(np.float32)
        for y, scale in zip(several, scales, strict=True)
    )
