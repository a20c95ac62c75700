"""Steps move into the epilogues of what produces their values.

Walking the graph in order, every epilogue has one *live* value, the one that its steps have come
to. A step that changes the value (`affine`, `add`, `rprelu`, ...) moves the live value on; what
others still need of it is written before: as bits or 8-bit integers where they want only those, as
a stored real number otherwise. Where a step's input is in memory and not live, a `pointwise` node
is opened for it. Bits become real numbers (`real`) where such a node reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from signbit.compiler.ir import LOWERED_OPS, READING, Graph, Node, Step, Type, Value
from signbit.compiler.shapes import following

WRITING = ("threshold", "sign", "quant8", "quant16")
_CONVOLUTIONS = ("conv_b1", "conv_q8", "conv_shift")
_PLAIN = tuple(op for op, spec in LOWERED_OPS.items() if not spec.epilogue)


def fuse(graph: Graph) -> Graph:
    """Turn steps into epilogues and put the nodes into an order that can be run."""
    fusion = _Fusion(graph)
    for node in graph.nodes:
        fusion.take(node)
    for value in graph.outputs:
        fusion.store(value)
    return replace(graph, nodes=_ordered([region.node for region in fusion.regions]))


@dataclass(eq=False)
class _Region:
    """A lowered node whose epilogue is still growing."""

    node: Node
    changed: list[Step] = field(default_factory=list)  # its steps that are not writes

    def reads(self) -> list[Value]:
        return self.node.inputs


class _Fusion:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.regions: list[_Region] = []
        self.live: dict[Value, _Region] = {}
        self.home: dict[Value, _Region | None] = {graph.input: None}  # who wrote what is in memory
        self.done: set[Node] = set()
        self.following = following(graph)

    def take(self, node: Node) -> None:
        if node in self.done:
            return
        if node.op in _CONVOLUTIONS or node.op == "real":
            region = self._open(node.op, node, node.inputs)
            self.live[node.outputs[0]] = region
        elif node.op in _PLAIN:
            region = self._open(node.op, node, self._sized(node))
            region.node.outputs.append(node.outputs[0])
            self.home[node.outputs[0]] = region
        elif node.op in WRITING:
            self._write(self._region_of(node.inputs[0], node), node)
        elif node.op in READING:
            self._combine(node)
        else:
            source = node.inputs[0]
            if self._meets_itself(node):
                self._leave(source)
            self._change(self._region_of(source, node), source, node, None)

    def store(self, value: Value) -> None:
        """See to it that `value` is in memory."""
        if value not in self.home:
            self._append(self.live[value], Step("store", value=value))

    # --- pieces ---

    def _open(self, op: str, node: Node, inputs: list[Value]) -> _Region:
        for value in inputs:
            self.store(value)
        attrs, params = (dict(node.attrs), dict(node.params)) if op == node.op else ({}, {})
        op = "pointwise" if op == "real" else op
        region = _Region(Node(op, node.path, list(inputs), [], attrs, params))
        self.regions.append(region)
        return region

    def _sized(self, node: Node) -> list[Value]:
        """A node's inputs; one that is read for its size may be any map of that size."""
        if node.op != "resize" or len(node.inputs) < 2:
            return node.inputs
        source, like = node.inputs
        if like not in self.home and self.live[like].node.outputs:
            like = self.live[like].node.outputs[0]
        return [source, like]

    def _region_of(self, value: Value, reader: Node) -> _Region:
        """Where `value` is live; opens a `pointwise` if it is only in memory."""
        if value not in self.live:
            self.live[value] = self._open("pointwise", replace(reader, op=""), [value])
        return self.live[value]

    def _meets_itself(self, node: Node) -> bool:
        """Whether what `node` begins to make of a value is added to, or multiplied with, that same
        value: an epilogue cannot read what it writes, so a node that reads it is opened."""
        source, value = node.inputs[0], node.outputs[0]
        if source.type != Type.F32 or source not in self.live:
            return False
        while True:
            readers = self.graph.consumers(value)
            if len(readers) != 1 or value in self.graph.outputs:
                return False
            if readers[0].op in READING:
                return source in readers[0].inputs
            if readers[0].op in (*_CONVOLUTIONS, *_PLAIN, *WRITING, "real"):
                return False
            value = readers[0].outputs[0]

    def _leave(self, value: Value) -> None:
        """Store a live value, having written the bits that others need of it."""
        for reader in self.graph.consumers(value):
            if reader.op in WRITING and reader not in self.done:
                self._write(self.live[value], reader)
        self.store(value)
        del self.live[value]

    def _append(self, region: _Region, step: Step) -> None:
        region.node.epilogue.append(step)
        if step.kind in READING:
            region.node.inputs.append(step.value)
        elif step.value is not None:
            region.node.outputs.append(step.value)
            self.home[step.value] = region
        if step.kind in READING or step.value is None:
            region.changed.append(step)

    def _write(self, region: _Region, node: Node) -> None:
        step = Step(node.op, dict(node.params), dict(node.attrs), node.outputs[0])
        self._append(region, step)
        self.done.add(node)

    def _combine(self, node: Node) -> None:
        """Add or multiply two maps: one of them is live, the other read from memory. The live one
        has the shape of the result; the other may be the same for all channels or pixels. Where the
        example has one pixel, so may both: then it is the one whose size follows the image's."""
        shape = node.outputs[0].shape
        pairs = [node.inputs, node.inputs[::-1]]
        pairs = [(main, other) for main, other in pairs if main.shape == shape]
        pairs = [pair for pair in pairs if pair[0] in self.following] or pairs
        for main, other in sorted(pairs, key=lambda pair: -self._weight(pair[0])):
            region = self.live.get(main)
            if region is not None and main is not other and self._may_wait(region, other):
                self.store(other)
                self._change(region, main, node, other)
                return
        main, other = pairs[-1]
        self.store(other)
        self.store(main)
        region = self._open("pointwise", replace(node, op=""), [main])
        self._change(region, main, node, other)

    def _weight(self, value: Value) -> tuple[int, int]:
        """How much there is to do in the region of `value`: the step waits for the greater one."""
        region = self.live.get(value)
        if region is None:
            return -1
        weight = region.node.params.get("weight")
        size = 0 if weight is None else weight[0].size
        return size * 100_000 + self.regions.index(region)

    def _may_wait(self, region: _Region, other: Value) -> bool:
        """Whether `region` may read `other`: what computes it must not depend on the region."""
        pending = [other]
        seen: set[_Region] = set()
        while pending:
            value = pending.pop()
            source = self.home.get(value) or self.live.get(value)
            if source is region:
                return False
            if source is not None and source not in seen:
                seen.add(source)
                pending += source.reads()
        return True

    def _change(self, region: _Region, value: Value, node: Node, other: Value | None) -> None:
        """Append a step that moves the live value on, having written what others need of it."""
        rest = []
        for reader in self.graph.consumers(value):
            if reader in self.done or reader is node:
                continue
            if reader.op in WRITING:
                self._write(region, reader)
            else:
                rest.append(reader)
        if self.live.get(value) is region:
            del self.live[value]
        if value.type == Type.I32 and rest:
            # Sums cannot be stored: whoever else needs them computes them again.
            copy = self._open(region.node.op, region.node, region.node.inputs[:1])
            for step in region.changed:
                self._append(copy, step)
            self.live[value] = copy
        elif (rest or value in self.graph.outputs) and value not in self.home:
            self._append(region, Step("store", value=value))
        self._append(region, Step(node.op, dict(node.params), dict(node.attrs), other))
        self.done.add(node)
        self.live[node.outputs[0]] = region


def _ordered(nodes: list[Node]) -> list[Node]:
    """The nodes in an order in which each value is written before it is read."""
    writer = {value: node for node in nodes for value in node.outputs}
    ordered: list[Node] = []
    visited: set[Node] = set()

    def visit(node: Node) -> None:
        # Recursion by hand: networks may be deeper than Python's stack.
        stack = [(node, iter(node.inputs))]
        visited.add(node)
        while stack:
            current, sources = stack[-1]
            source = next(
                (writer[v] for v in sources if v in writer and writer[v] not in visited), None
            )
            if source is None:
                ordered.append(current)
                stack.pop()
            else:
                visited.add(source)
                stack.append((source, iter(source.inputs)))

    for node in nodes:
        if node not in visited:
            visit(node)
    return ordered
