"""Epilogues that are longer than the engine's go on in a node of their own.

A real number is stored where the steps are cut, and a `pointwise` node reads it. A convolution's
sum cannot be stored: where too many layers want its bits, it is computed again for the others.
"""

from __future__ import annotations

from dataclasses import replace

from signbit.compiler.ir import MAX_STEPS, READING, Graph, Node, Step, Type, Value
from signbit.errors import CompileError


def split_epilogues(graph: Graph) -> Graph:
    """A copy of a fused graph in which no epilogue has more than `MAX_STEPS` steps.

    Raises CompileError, naming the layer, for more steps on an integer than can be cut.
    """
    nodes: list[Node] = []
    parts = 0
    for node in graph.nodes:
        while len(node.epilogue) > MAX_STEPS:
            parts += 1
            first, node = _cut(node, parts)
            nodes.append(first)
        nodes.append(node)
    return replace(graph, nodes=nodes)


def _cut(node: Node, part: int) -> tuple[Node, Node]:
    """Two nodes that do what one did; the first has no more than `MAX_STEPS` steps."""
    at = MAX_STEPS - 1  # and one to store the value
    if node.op == "pointwise" or any(step.kind == "affine" for step in node.epilogue[:at]):
        value, stored = _stored(node, at, part)
        first = _with_steps(node, node.inputs[0], node.epilogue[:at] + stored)
        rest = replace(node, op="pointwise", attrs={}, params={})
        return first, _with_steps(rest, value, node.epilogue[at:])
    at = 0
    while at < MAX_STEPS and node.epilogue[at].kind == "threshold":
        at += 1
    if at == 0:
        raise CompileError(
            f"{node.path}: more than {MAX_STEPS} steps follow on its integer sums: let fewer "
            "layers read its result"
        )
    first = _with_steps(node, node.inputs[0], node.epilogue[:at])
    return first, _with_steps(node, node.inputs[0], node.epilogue[at:])


def _stored(node: Node, at: int, part: int) -> tuple[Value, list[Step]]:
    """The value that the first `at` steps come to, and the step that stores it if none does."""
    for step in reversed(node.epilogue[:at]):
        if step.kind == "store":
            return step.value, []
        if step.kind in READING or step.value is None:
            break
    value = Value(f"{node.path}:part{part}", Type.F32, node.outputs[0].shape)
    return value, [Step("store", value=value)]


def _with_steps(node: Node, source: Value, steps: list[Step]) -> Node:
    """A copy of `node` that reads `source` and has these steps alone."""
    inputs = [source, *(step.value for step in steps if step.kind in READING)]
    written = (step for step in steps if step.kind not in READING)
    outputs = [step.value for step in written if step.value is not None]
    return replace(node, inputs=inputs, outputs=outputs, epilogue=steps)
