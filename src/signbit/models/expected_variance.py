"""Expected variances along the residual stream of a network without normalisation.

Batch norm measures the variance of its input; a normaliser-free network predicts it. If stem and
branches keep a variance of 1 (scaled weight standardisation sees to it), a layer ``x + alpha *
branch(x)`` adds alpha**2 to that of its input. In front of a sign the input is divided by the root
of the expected variance, ``beta = 1 / sqrt(v)``, which changes no sign: it sets the width of the
surrogate's gradient. The functions below give the betas of A&B BNN's networks, arXiv 2403.03739,
with the habits of the authors' code.
"""

import math
from collections.abc import Sequence


def reactnet_betas(layers: Sequence[int], alpha: float) -> list[list[float]]:
    """Return the beta of every layer of a ReActNet-18 or -34, stage by stage.

    ``layers`` is their number in each stage. The variance v starts at 1. The first layer of a stage
    takes the v that the stage before has left; downsampling (stages two and later) then sets v to
    1. Every later layer takes v and adds ``alpha**2``. That first layers add nothing is a habit of
    the authors' code, also in the first stage, where nothing is downsampled.
    """
    betas = []
    variance = 1.0
    for index, count in enumerate(layers):
        stage = [_beta(variance)]
        if index > 0:
            variance = 1.0
        for _ in range(count - 1):
            stage.append(_beta(variance))
            variance += alpha**2
        betas.append(stage)
    return betas


def reactnet_a_betas(strides: Sequence[int], alpha: float) -> list[tuple[float, float]]:
    """Return the two betas (3x3, 1x1) of every block of a ReActNet-A; ``strides`` are the blocks'.

    The variance v starts at 1 and grows by ``alpha**2`` in each half of a block. Behind a block of
    stride 2 it is set to 1.
    """
    betas = []
    variance = 1.0
    for stride in strides:
        middle = variance + alpha**2
        betas.append((_beta(variance), _beta(middle)))
        variance = 1.0 if stride == 2 else middle + alpha**2
    return betas


def _beta(variance: float) -> float:
    return 1.0 / math.sqrt(variance)
