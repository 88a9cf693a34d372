"""Excess precision: chains of arithmetic in float64, of which float32 sees only what is stored.

Takes a task; gives one whose values between loads and stores are f64, where that saves roundings. Invariant: what a
task reads and writes keeps its type, and what is computed by an expansion (exp, erf) takes and gives f32. A task that
takes away what it has just added asks for the rounding itself, as log(1 + x) does of small x, sums with compensation,
and (x + 2**23) - 2**23: it stays in f32.

For entries that give derivatives. A sigmoid's slope at a logit of -20 is off by 20 times the logit's relative error,
and few pixels give most of what is summed over an image. Rounded once an operation, the chains of bias, scale, shift
and hard swish between a detector's convolutions put single elements of its gradients off by up to 1e-4 of the largest,
at some points by more; computed like this, and with short sums of products, by half of that (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from tessera_build.ir.core.dims import symbol, symbols_of
from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.core.scalar import COMPARISONS, ScalarBuilder, ScalarProgram
from tessera_build.ir.core.types import BOOL, F32, F64, Type, tensor
from tessera_build.ir.schedule.nodes import Access, Compute
from tessera_build.lower.graph_to_schedule.tasks import Task

_ROUNDING = frozenset({"add", "sub", "mul", "div", "fma"})
_EXACT = frozenset({"neg", "abs", "max", "min", "select", "const", *COMPARISONS})


def with_excess_precision(task: Task) -> Task:
    """The task with its chains of arithmetic in f64; tasks of one operation stay as they are."""
    if task.kind not in ("pointwise", "contraction"):
        return task
    chain = [n for n in task.function.nodes if isinstance(n, Compute) and _is_arithmetic(n)]
    if _asks_for_rounding(chain):
        return task
    seen = _seen(task.function, chain)
    saved = sum(op.name in _ROUNDING for n in chain for op in n.program.ops) - len(seen)
    return replace(task, function=_widened(task.function, chain, seen)) if saved > 0 else task


def _is_arithmetic(node: Compute) -> bool:
    """Whether every operation of a definition is one that the machine rounds correctly, or that does not round."""
    kinds = {*node.program.inputs, *(op.dtype for op in node.program.ops)}
    gathers = any(name.startswith("_r") for a in node.accesses for i in a.indices for name in symbols_of(i))
    plain = node.combine == "none" and not node.index_values and not gathers
    return plain and kinds <= {F32, BOOL} and all(op.name in _ROUNDING | _EXACT for op in node.program.ops)


def _asks_for_rounding(chain: Sequence[Compute]) -> bool:
    """Whether a difference has a sum or difference for one operand, in which the other one is an operand, too."""
    names, terms = dict[int, Hashable](), dict[Hashable, list[Hashable]]()
    for node in chain:
        values = [names.get(value, value) for value in node.reads]
        for index, op in enumerate(node.program.ops):
            operands = [values[a] for a in op.args]
            values.append(("number", abs(op.value)) if op.value is not None else (node.result, index))
            if op.name in ("add", "sub"):
                terms[values[-1]] = operands
                pairs = (operands, operands[::-1])
                if any(whole in terms and part in terms[whole] for whole, part in pairs):
                    return True
        names[node.result] = values[node.program.results[0]]
    return False


def _seen(function: Function, chain: Sequence[Compute]) -> frozenset[int]:
    """Floats made in the chain that the task stores, or that something outside of the chain reads."""
    made = {n.result for n in chain if _result(n.program) == F32}
    inside = {id(n) for n in chain}
    read = {v for n in function.nodes if isinstance(n, Compute) and id(n) not in inside for v in n.reads}
    return frozenset(made & (read | set(function.results)))


def _result(program: ScalarProgram) -> object:
    return program.dtype(program.results[0])


def _widened(function: Function, chain: Sequence[Compute], seen: frozenset[int]) -> Function:
    types, nodes, wide = dict[int, Type](function.types), list[Node](), dict[int, int]()
    inside = {id(n) for n in chain}
    for node in function.nodes:
        if not isinstance(node, Compute) or id(node) not in inside:
            nodes.append(node)
            continue
        made = replace(node, reads=tuple(wide.get(v, v) for v in node.reads), program=_in_f64(node, wide))
        if _result(node.program) == F32:
            wide[node.result] = max(types) + 1
            types[wide[node.result]] = tensor(F64, *types[node.result].shape)
            made = replace(made, result=wide[node.result])
        nodes.append(made)
        if node.result in seen:
            nodes.append(_rounded(node, wide[node.result]))
    return replace(function, nodes=tuple(nodes), types=types)


def _in_f64(node: Compute, wide: dict[int, int]) -> ScalarProgram:
    """The definition's program on f64, with what it reads as f32 converted."""
    given = zip(node.reads, node.program.inputs, strict=True)
    builder = ScalarBuilder([F64 if value in wide else kind for value, kind in given])
    values = [i if kind == BOOL else builder.cast(i, F64) for i, kind in enumerate(node.program.inputs)]
    for op in node.program.ops:
        if op.value is not None:
            values.append(builder.const(op.value, F64 if op.dtype == F32 else op.dtype))
        else:
            values.append(builder.op(op.name, *(values[a] for a in op.args)))
    return builder.finish(*(values[r] for r in node.program.results))


def _rounded(node: Compute, value: int) -> Compute:
    """The definition's own result, of its f64 one."""
    builder = ScalarBuilder([F64])
    place = Access(tuple(symbol(axis.name) for axis in node.axes))
    return Compute(node.result, (value,), (place,), node.axes, (), "none", builder.finish(builder.cast(0, F32)))
