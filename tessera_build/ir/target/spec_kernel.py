"""Rules of the kernel nodes that compute or direct control.

Takes a scope and a node; gives what is wrong with it. Invariant: each rule is one sentence of the node's docstring.
"""

from __future__ import annotations

from collections.abc import Iterator

from tessera_build.ir.core.node import Region
from tessera_build.ir.core.spec import Scope
from tessera_build.ir.core.types import BOOL, I8, I16, I32, I64, U8, U32, DType, Type, scalar
from tessera_build.ir.target.kernel import (
    OPS,
    Branch,
    Check,
    Const,
    Extract,
    Insert,
    LaneIndex,
    Loop,
    Op,
    Shuffle,
    Splat,
)

COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
FLOAT_ONLY = frozenset({"fma", "sqrt", "scale", "floor", "ceil", "round"})
BITWISE = frozenset({"and", "or", "xor", "not", "shl", "lshr", "ashr"})

# Operations on bundles: the element type and how many elements of each (further) operand lie in one lane of i32.
BUNDLED = {"dot4": ((U8, 4), (I8, 4)), "dot2": ((I16, 2), (I16, 2))}


def lanes(type_: Type) -> int:
    """Lanes of a vector, 0 for a scalar, -1 for what is neither or is not of rank 1."""
    if type_.container == "scalar":
        return 0
    return type_.static_shape[0] if type_.container == "vector" and type_.rank == 1 else -1


def constant_value(scope: Scope, node: Const) -> Iterator[str]:
    """The value is one of the result's element type."""
    type_ = scope.type(node.result)
    if lanes(type_) < 0:
        yield f"a constant is {type_}, neither a scalar nor a vector"
    if isinstance(node.value, float) and not type_.dtype.is_float:
        yield f"{node.value} is not a value of {type_.dtype}"
    bits = type_.dtype.bits - (type_.dtype.kind == "signed")
    low = -(1 << bits) if type_.dtype.kind == "signed" else 0
    if not type_.dtype.is_float and not low <= node.value < 1 << bits:
        yield f"{node.value} does not fit into {type_.dtype}"


def op_row(_scope: Scope, node: Op) -> Iterator[str]:
    """The name is a row of `OPS`, with that many operands."""
    if node.name not in OPS:
        yield f"{node.name!r} is not a row of OPS"
    elif OPS[node.name] != len(node.operands):
        yield f"{node.name} has {len(node.operands)} operands, {OPS[node.name]} belong there"


def op_types(scope: Scope, node: Op) -> Iterator[str]:
    """Operands and result have the types that the operation joins."""
    if OPS.get(node.name) != len(node.operands):
        return
    operands, result = [scope.type(o) for o in node.operands], scope.type(node.result)
    text = f"{node.name} of ({', '.join(map(str, operands))}) giving {result}"
    if any(lanes(t) < 0 for t in (*operands, result)):
        yield f"{text}: not scalars or vectors"
    elif not _types_join(node.name, operands, result):
        yield f"{text}: the types do not fit"


def _types_join(name: str, operands: list[Type], result: Type) -> bool:
    first = operands[0]
    if name == "cast":
        return lanes(first) == lanes(result)
    if name == "bitcast":
        return max(1, lanes(first)) * _width(first.dtype) == max(1, lanes(result)) * _width(result.dtype)
    if name in BUNDLED:
        parts, wanted = BUNDLED[name], operands if name == "dot2" else operands[1:]
        whole = result.dtype == I32 and operands[0] == (result if name == "dot4" else operands[0])
        return whole and tuple((t.dtype, lanes(t)) for t in wanted) == tuple((d, n * lanes(result)) for d, n in parts)
    if name in COMPARISONS:
        return operands[1] == first and result == _booleans(first)
    if name == "select":
        condition = first in (_booleans(result), scalar(BOOL))
        return condition and operands[1] == operands[2] == result
    if name == "mulhi" and first.dtype != U32:
        return False
    kinds = not (name in FLOAT_ONLY and not first.dtype.is_float) and not (name in BITWISE and first.dtype.is_float)
    return kinds and all(t == result for t in operands)


def _width(dtype: DType) -> int:
    """Bits of an element in a register: floats narrower than a byte fill one."""
    return max(8, dtype.bits) if dtype.is_float else dtype.bits


def _booleans(type_: Type) -> Type:
    return Type(type_.container, BOOL, type_.shape)


def splat(scope: Scope, node: Splat) -> Iterator[str]:
    """A scalar becomes a vector of its type."""
    operand, result = scope.type(node.operand), scope.type(node.result)
    if lanes(operand) != 0 or lanes(result) < 1 or operand.dtype != result.dtype:
        yield f"a splat of {operand} to {result}"


def lane_index(scope: Scope, node: LaneIndex) -> Iterator[str]:
    """The result is a vector of integers."""
    result = scope.type(node.result)
    if lanes(result) < 1 or result.dtype.kind not in {"signed", "unsigned"}:
        yield f"lane numbers as {result}"


def extract(scope: Scope, node: Extract) -> Iterator[str]:
    """The lane exists; the result is a scalar of the vector's type."""
    operand, result = scope.type(node.operand), scope.type(node.result)
    if not 0 <= node.lane < lanes(operand) or result != scalar(operand.dtype):
        yield f"lane {node.lane} of {operand} as {result}"


def insert(scope: Scope, node: Insert) -> Iterator[str]:
    """The lane exists; the value is a scalar of the vector's type; the result has the operand's."""
    operand, value = scope.type(node.operand), scope.type(node.value)
    if not 0 <= node.lane < lanes(operand) or value != scalar(operand.dtype):
        yield f"{value} into lane {node.lane} of {operand}"
    if scope.type(node.result) != operand:
        yield f"result {scope.type(node.result)} of an insert into {operand}"


def shuffle(scope: Scope, node: Shuffle) -> Iterator[str]:
    """Two vectors of one type; every lane is one of theirs; the result has one lane a number."""
    left, right, result = scope.type(node.left), scope.type(node.right), scope.type(node.result)
    if lanes(left) < 1 or left != right:
        yield f"a shuffle of {left} and {right}"
    elif any(not 0 <= lane < 2 * lanes(left) for lane in node.lanes):
        yield f"lanes {node.lanes} of two times {left}"
    if result != Type("vector", left.dtype, (len(node.lanes),)):
        yield f"result {result} of {len(node.lanes)} lanes of {left}"


def loop_bounds(scope: Scope, node: Loop) -> Iterator[str]:
    """Start and stop are i64, and the step goes upwards."""
    if any(scope.type(v) != scalar(I64) for v in (node.start, node.stop)):
        yield f"bounds are {scope.type(node.start)} and {scope.type(node.stop)}, not i64"
    if node.step < 1:
        yield f"step {node.step} is less than 1"


def loop_carried(scope: Scope, node: Loop) -> Iterator[str]:
    """The body takes the index and the carried values; carried, yielded and resulting types agree."""
    carried = [scope.type(v) for v in node.carried]
    if [scope.type(v) for v in node.body.args] != [scalar(I64), *carried]:
        yield "the body's arguments are not the index (i64) and the carried values"
    if [scope.type(v) for v in node.body.results] != carried or [scope.type(v) for v in node.results] != carried:
        yield "what the body yields, or the results, are not of the carried values' types"


def condition(scope: Scope, node: Branch | Check) -> Iterator[str]:
    """The condition is a scalar bool."""
    if scope.type(node.condition) != scalar(BOOL):
        yield f"the condition is {scope.type(node.condition)}, not a scalar bool"


def branch_regions(scope: Scope, node: Branch) -> Iterator[str]:
    """Both regions take nothing and yield values of the results' types."""
    wanted = [scope.type(r) for r in node.results]

    def fits(region: Region) -> bool:
        return not region.args and [scope.type(r) for r in region.results] == wanted

    if not fits(node.then) or not fits(node.otherwise):
        yield "a region has arguments or does not yield the results' types"


def check_code(_scope: Scope, node: Check) -> Iterator[str]:
    """The code of a failure is a positive 31-bit number."""
    if not 0 < node.code < 1 << 31:
        yield f"status code {node.code}"
