"""One sweep over a module: the loop that every pass of this level shares.

Takes a rule that is shown each node with its operands in the new function; gives the next module. Invariant: names,
dims, states and spans are kept, whatever the rule makes for a node takes that node's span, and nodes that nothing
reads are gone afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tessera_build.ir.core.node import Function
from tessera_build.ir.graph.builder import ConstantPool, GraphBuilder, graph_nodes, module_of
from tessera_build.ir.graph.nodes import GraphNode, Module, StatePair


@dataclass(frozen=True, slots=True)
class Site:
    """A node of the old function as a rule meets it: `inputs` are its operands in the new function `to`.

    `uses` counts, for each value of the old function, the operands and results that it is.
    """

    node: GraphNode
    inputs: tuple[int, ...]
    to: GraphBuilder
    old: Function
    uses: Mapping[int, int]

    def only_use(self, operand: int) -> bool:
        """Whether this node is the only reader of its operand at that position."""
        return self.uses[self.node.inputs[operand]] == 1


# A rule gives the values that replace the node's results, or None to keep the node.
Rule = Callable[[Site], Sequence[int] | None]
MakeRule = Callable[[], Rule]


def rewrite(module: Module, make_rule: MakeRule) -> Module:
    """The module after one sweep; `make_rule` is asked for each entry, so a rule may remember what it has seen."""
    pool = ConstantPool(module.constants, module.constant_names)
    swept = [_rewrite_entry(module, entry, make_rule(), pool) for entry in module.entries]
    states = {
        entry: tuple(StatePair(values[pair.incoming], values[pair.outgoing]) for pair in module.states.get(entry, ()))
        for entry, (_, values) in zip(module.entries, swept, strict=True)
        if entry in module.states
    }
    made = module_of([builder for builder, _ in swept])
    # Everything but the entries and their constants is the old module's: a rule cannot change a signature.
    return drop_dead(
        replace(
            module,
            entries=made.entries,
            constants=made.constants,
            constant_names=made.constant_names,
            states=states,
        )
    )


def _rewrite_entry(
    module: Module, entry: str, rule: Rule, pool: ConstantPool
) -> tuple[GraphBuilder, Mapping[int, int]]:
    old = module.entries[entry]
    to = GraphBuilder(entry, module.dims, pool)
    values = {
        arg: to.input(name, old.types[arg]) for arg, name in zip(old.args, module.input_names[entry], strict=True)
    }
    uses = use_counts(old)
    for node in graph_nodes(old):
        with to.at(old.locations.get(node)):
            site = Site(node, tuple(values[i] for i in node.inputs), to, old, uses)
            results = rule(site)
            values.update(zip(node.outputs, keep(site) if results is None else results, strict=True))
    for name, result in zip(module.output_names[entry], old.results, strict=True):
        to.output(name, values[result])
    return to, values


def keep(site: Site) -> tuple[int, ...]:
    """The node as it is, over its new operands."""
    if site.node.op == "constant":
        return (site.to.pooled(str(site.node.attributes["digest"])),)
    return site.to.node(site.node.op, site.inputs, site.node.attributes)


def use_counts(function: Function) -> Counter[int]:
    """How many operands and results each value is."""
    counts = Counter(function.results)
    for node in graph_nodes(function):
        counts.update(node.inputs)
    return counts


def drop_dead(module: Module) -> Module:
    """The module without nodes that no result depends on, and without constants that no node names."""
    entries = {name: _drop_dead(function, module) for name, function in module.entries.items()}
    used = {str(n.attributes["digest"]) for f in entries.values() for n in graph_nodes(f) if n.op == "constant"}
    return replace(
        module,
        entries=entries,
        constants={d: a for d, a in module.constants.items() if d in used},
        constant_names={d: n for d, n in module.constant_names.items() if d in used},
    )


def _drop_dead(function: Function, module: Module) -> Function:
    live = set(function.results) | {pair.outgoing for pair in module.states.get(function.name, ())}
    kept: list[GraphNode] = []
    for node in reversed(list(graph_nodes(function))):
        if live.intersection(node.outputs):
            live.update(node.inputs)
            kept.append(node)
    kept.reverse()
    defined = {*function.args, *(output for node in kept for output in node.outputs)}
    return replace(
        function,
        nodes=tuple(kept),
        types={value: type_ for value, type_ in function.types.items() if value in defined},
        locations={node: function.locations[node] for node in kept if node in function.locations},
    )
