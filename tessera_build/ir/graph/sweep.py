"""One sweep over a module: the loop that every pass of this level shares.

Takes a rule that is shown each node with its operands in the new function; gives the next module. Invariant: names,
dims, states and spans are kept, whatever the rule makes for a node takes that node's span, and nodes that nothing
reads are gone afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace

from tessera_build.ir.core.node import Function, Node, Region, walk
from tessera_build.ir.core.rewrite import eliminate_dead
from tessera_build.ir.core.structure import symbols_defined_by
from tessera_build.ir.graph.builder import ConstantPool, GraphBuilder, graph_nodes, guard_symbols, module_of
from tessera_build.ir.graph.nodes import GraphNode, Module, StatePair
from tessera_build.ir.graph.regions import index_range


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
    regions: tuple[Region, ...] = ()  # the node's regions, swept already, in the new function

    def only_use(self, operand: int) -> bool:
        """Whether this node is the only reader of its operand at that position."""
        return self.uses[self.node.inputs[operand]] == 1


# A rule gives the values that replace the node's results, or None to keep the node.
Rule = Callable[[Site], Sequence[int] | None]
MakeRule = Callable[[], Rule]


def rewrite(module: Module, make_rule: MakeRule, *, without: Container[str] = ()) -> Module:
    """The module after one sweep; `make_rule` is asked for each entry, so a rule may remember what it has seen.

    Nothing is rewritten in entries that `without` names.
    """
    pool = ConstantPool(module.constants, module.constant_names)
    rules = [keep if entry in without else make_rule() for entry in module.entries]
    swept = [_rewrite_entry(module, entry, rule, pool) for entry, rule in zip(module.entries, rules, strict=True)]
    states = {
        entry: tuple(StatePair(values[pair.incoming], values[pair.outgoing]) for pair in module.states.get(entry, ()))
        for entry, (_, values) in zip(module.entries, swept, strict=True)
        if entry in module.states
    }
    made = module_of([builder for builder, _ in swept])
    # Everything but the entries, their constants and new guards is the old module's: no rule changes a signature.
    return drop_dead(
        replace(
            module,
            entries=made.entries,
            constants=made.constants,
            constant_names=made.constant_names,
            states=states,
            guards=tuple(dict.fromkeys((*module.guards, *made.guards))),
            guard_spans={**made.guard_spans, **module.guard_spans},
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
    _Sweep(rule, to, old, use_counts(old), values).block(old.nodes)
    for name, result in zip(module.output_names[entry], old.results, strict=True):
        to.output(name, values[result])
    return to, values


@dataclass(slots=True)
class _Sweep:
    """One function under rewriting; `values` maps the values of `old` to those of `to`."""

    rule: Rule
    to: GraphBuilder
    old: Function
    uses: Mapping[int, int]
    values: dict[int, int]

    def block(self, nodes: Sequence[Node]) -> None:
        """Show each node to the rule, after the nodes of its regions."""
        for node in nodes:
            assert isinstance(node, GraphNode)
            with self.to.at(self.old.locations.get(node)):
                regions = tuple(self._region(node, region) for region in node.regions)
                inputs = tuple(self.values[i] for i in node.inputs)
                site = Site(node, inputs, self.to, self.old, self.uses, regions)
                # What gives no value cannot be replaced by values.
                results = self.rule(site) if node.outputs else None
                self.values.update(zip(node.outputs, keep(site) if results is None else results, strict=True))

    def _region(self, node: GraphNode, region: Region) -> Region:
        types = [self.old.types[a] for a in region.args]
        with self.to.region(types, index_range(node, self.to.dims)) as made:
            self.values.update(zip(region.args, made.args, strict=True))
            self.block(region.nodes)
            made.yields(*(self.values[r] for r in region.results))
        return made.region


def keep(site: Site) -> tuple[int, ...]:
    """The node as it is, over its new operands."""
    if site.node.op == "constant":
        return (site.to.pooled(str(site.node.attributes["digest"])),)
    return site.to.node(site.node.op, site.inputs, site.node.attributes, site.regions)


def use_counts(function: Function) -> Counter[int]:
    """How many operands and results each value is."""
    counts = Counter(function.results)
    for node in graph_nodes(function):
        counts.update(node.inputs)
        for region in node.regions:
            counts.update(region.results)
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
    states = tuple(pair.outgoing for pair in module.states.get(function.name, ()))
    guarded = {name for guard in module.guards for name in guard_symbols(guard)}
    kept = eliminate_dead(
        replace(function, results=(*function.results, *states)),
        lambda node: any(not guarded.isdisjoint(symbols_defined_by(inner)) for inner in walk((node,))),
    )
    return replace(kept, results=function.results)
