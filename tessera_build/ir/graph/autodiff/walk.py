"""One sweep over the nodes of a function: values are emitted, and beside them go their tangents.

Takes values for the arguments and tangents for some of them; gives values and tangents of everything. With a recorder
the tangents are linear values of its program, else ordinary values of the builder. Invariant: a value without an entry
in `tangents` has the tangent zero, and nothing is emitted for it but itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.core.structure import captured
from tessera_build.ir.core.types import BOOL, Type
from tessera_build.ir.graph.autodiff.branches import push_if, record_if
from tessera_build.ir.graph.autodiff.checkpoints import push_checkpoint, record_checkpoint
from tessera_build.ir.graph.autodiff.derivative import Derivative, Site, not_differentiable
from tessera_build.ir.graph.autodiff.emit import Emit, Values
from tessera_build.ir.graph.autodiff.equations import differentiate_linear_solve
from tessera_build.ir.graph.autodiff.iterations import push_loop, record_loop
from tessera_build.ir.graph.autodiff.program import Recorder
from tessera_build.ir.graph.autodiff.replay import Replay
from tessera_build.ir.graph.autodiff.rules.table import DERIVATIVES, THROUGH_OTHERS
from tessera_build.ir.graph.autodiff.stated import differentiate_stated
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.composed import COMPOSED
from tessera_build.ir.graph.nodes import GraphNode


class Walk:
    """The sweep. With `written`, the nodes are in the builder already, and only tangents are made."""

    def __init__(
        self, to: GraphBuilder, function: Function, recorder: Recorder | None = None, *, written: bool = False
    ) -> None:
        to.mark_derivative()
        self.to = to
        self.function = function
        self.recorder = recorder
        self.written = written
        self.values: dict[int, int] = {}
        self.tangents: dict[int, int] = {}
        self.kept: frozenset[int] = frozenset()  # values of the function that are there already, though it is not
        # What jumps where something with a tangent changes, and whether it has come through 8 bits or fewer.
        self.stepwise: dict[int, bool] = {}

    def inside(self, recorder: Recorder | None) -> Walk:
        """A sweep over a region of the same function, which sees what was made around it."""
        inner = Walk(self.to, self.function, recorder)
        inner.values.update(self.values)
        inner.kept = self.kept
        inner.stepwise = self.stepwise
        return inner

    def type(self, value: int) -> Type:
        """The type of a value of the function."""
        return self.function.types[value]

    def value(self, value: int) -> int:
        """A value of the function as it was emitted."""
        return self.values.get(value, value)

    def tangents_of(self, values: Sequence[int]) -> list[int | None]:
        """The tangents of values of the function."""
        return [self.tangents.get(v) for v in values]

    def nodes(self, nodes: Sequence[Node]) -> None:
        """Go through nodes in order."""
        for node in nodes:
            assert isinstance(node, GraphNode)
            with self.to.at(self.function.locations.get(node) or self.to.span):
                seeds = {o: self.tangents[o] for o in node.outputs if o in self.tangents}
                self._node(node)
                self._follow_jumps(node)
                for output, seed in seeds.items():  # differentiated by, and depends on others that are
                    if self.tangents[output] != seed:
                        self.tangents[output] = Emit(self.recorder or self.to).op("add", self.tangents[output], seed)

    def _node(self, node: GraphNode) -> None:
        read = (*node.inputs, *captured(node.regions))
        if all(v not in self.tangents for v in read):
            self._write(node)
        elif node.op == "if":
            (record_if if self.recorder else push_if)(self, node)
        elif node.op == "loop":
            (record_loop if self.recorder else push_loop)(self, node)
        elif node.op == "checkpoint":
            (record_checkpoint if self.recorder else push_checkpoint)(self, node)
        elif node.op == "stated":
            self._write(node)
            differentiate_stated(self, node)
        elif node.op == "linear_solve":
            self._write(node)
            differentiate_linear_solve(self, node)
        elif node.op in THROUGH_OTHERS:
            self._through_others(node)
        else:
            self._write(node)
            self._differentiate(node)

    def _follow_jumps(self, node: GraphNode) -> None:
        """Refuse numbers of 8 bits that become floats again: all that a network of them would give, in silence, is the
        change of its scales."""
        if not any(i in self.tangents or i in self.stepwise for i in node.inputs):
            return
        short = any(self.stepwise.get(i, False) for i in node.inputs)
        for output in node.outputs:
            dtype = self.type(output).dtype
            if short and node.op == "cast" and dtype.is_float:
                reason = "what was rounded to 8 bits comes back as floats, constant between jumps; state its derivative"
                raise not_differentiable(node.op, reason, str(self.to.span) if self.to.span else None)
            if output not in self.tangents and dtype != BOOL:
                self.stepwise[output] = short or (not dtype.is_float and dtype.bits <= 8)

    def _write(self, node: GraphNode) -> None:
        if not self.written and not self._is_kept(node):
            Replay(self.to, self.values, self.type, self.function.locations.get).nodes((node,))

    def _is_kept(self, node: GraphNode) -> bool:
        return bool(node.outputs) and self.kept.issuperset(node.outputs)

    def _differentiate(self, node: GraphNode) -> None:
        if not any(self.type(o).dtype.is_float for o in node.outputs):
            return
        row = DERIVATIVES[node.op]
        if not isinstance(row, Derivative):
            raise not_differentiable(node.op, row.reason, str(self.to.span) if self.to.span else None)
        inputs, outputs = (tuple(self.value(v) for v in values) for values in (node.inputs, node.outputs))
        given = self.tangents_of(node.inputs)
        if self.recorder is not None and row.vjp is not None:
            found = self._record(row, Site(Emit(self.recorder), node, inputs, outputs), given)
        else:
            found = row.jvp(Site(Emit(self.recorder or self.to), node, inputs, outputs), given)
        for output, tangent in zip(node.outputs, found, strict=True):
            if tangent is not None and self.type(output).dtype.is_float:
                self.tangents[output] = tangent

    def _through_others(self, node: GraphNode) -> None:
        """Differentiate what the op is written out as, which takes its place."""
        made = GraphBuilder(node.op, self.to.dims, self.to.pool)
        args = [made.input(f"x{i}", self.type(v)) for i, v in enumerate(node.inputs)]
        made.output("y", COMPOSED[node.op](made, args, node.attributes))
        function = made.function()
        inner = Walk(self.to, function, self.recorder)
        inner.stepwise = self.stepwise
        inner.values.update((a, self.value(v)) for a, v in zip(args, node.inputs, strict=True))
        inner.tangents.update(
            (a, self.tangents[v]) for a, v in zip(args, node.inputs, strict=True) if v in self.tangents
        )
        inner.nodes(function.nodes)
        if not self.written and not self._is_kept(node):
            self.values[node.output] = inner.value(function.results[0])
        if function.results[0] in inner.tangents:
            self.tangents[node.output] = inner.tangents[function.results[0]]

    def _record(self, row: Derivative, site: Site, given: Values) -> Values:
        """A step that passes cotangents back by the rule that the op has for it."""
        vjp, recorder = row.vjp, self.recorder
        assert vjp is not None
        assert recorder is not None
        active = [i for i, tangent in enumerate(given) if tangent is not None]

        def back(emit: Emit, cotangents: Values) -> Values:
            found = vjp(Site(emit, site.node, site.inputs, site.outputs), cotangents)
            return [found[i] for i in active]

        linear = [t for t in given if t is not None]
        return recorder.step(site.node.op, linear, [self.type(o) for o in site.node.outputs], back)
