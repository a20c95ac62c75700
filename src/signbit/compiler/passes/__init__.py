"""The passes: from the captured graph to one that only holds what the engine knows.

In between stands a third, looser form: convolutions that give sums (i32), and one node for every
step that a value walks through (`affine`, `rprelu`, `add`, `sign`, `threshold`, ...), named and
parametrised like the steps of an epilogue. Folding is done in float64; `cast` rounds once, last.
"""

from __future__ import annotations

import numpy as np

from signbit.compiler.ir import Graph
from signbit.compiler.passes.cast import cast
from signbit.compiler.passes.check import check
from signbit.compiler.passes.dead import remove_dead
from signbit.compiler.passes.expand import expand
from signbit.compiler.passes.fold import fold_affine
from signbit.compiler.passes.fuse import fuse
from signbit.compiler.passes.int4 import lower_int4
from signbit.compiler.passes.movement import compose_channels, move_signs
from signbit.compiler.passes.share import share_quant8
from signbit.compiler.passes.simplify import simplify
from signbit.compiler.passes.split import split_epilogues
from signbit.compiler.passes.thresholds import lower_signs

_LOWERINGS = (
    expand,
    compose_channels,
    move_signs,
    lower_int4,
    lower_signs,
    remove_dead,
    fold_affine,
    share_quant8,
)


def lower(captured: Graph, precision: type[np.floating] = np.float32) -> Graph:
    """Lower a captured graph; the captured one stays as it is.

    `precision` float64 leaves real-valued arrays as they were folded, for tests of the functions
    themselves. Raises CompileError naming the layer that cannot be lowered.
    """
    graph = simplify(captured)
    for lowering in _LOWERINGS:
        graph = lowering(graph)
    return check(cast(split_epilogues(fuse(graph)), precision))
