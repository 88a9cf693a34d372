"""Ops with regions: a choice between two blocks, a block that runs again and again, and one that is computed again.

Takes operands and regions that capture values of the blocks around them; gives what the regions give. Invariant: a
result's type is known before anything runs. What a loop carries may change its extents as the index tells: the type of
a region's argument at index 0 is the operand's, at the next index the result's, and behind the last the output's.
"""

from __future__ import annotations

from collections.abc import Sequence

from tessera_build.ir.core.dims import Extent, evaluate, substitute, symbol, symbols_of
from tessera_build.ir.core.types import BOOL, Type, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import (
    Attributes,
    Body,
    Control,
    DimValues,
    Op,
    RegionType,
    expect_count,
    extent_of,
    flag_of,
    int_of,
    mismatch,
    texts,
)


def index_of(attributes: Attributes) -> str:
    """The name of a loop's index."""
    name = attributes["index"]
    if not isinstance(name, str) or not name.isidentifier():
        raise mismatch("attribute index is not a name", "an identifier", repr(name))
    return name


def _infer_if(types: Sequence[Type], _: Attributes, regions: Sequence[RegionType]) -> tuple[Type, ...]:
    expect_count("if", types, 1)
    _expect_condition("if", types[0])
    then, otherwise = regions
    if then.args or otherwise.args:
        raise mismatch("a region of if has arguments", "none", texts((*then.args, *otherwise.args)))
    if then.results != otherwise.results:
        raise mismatch("the regions of if give other types", texts(then.results), texts(otherwise.results))
    return then.results


def _run_if(
    arrays: Sequence[Array], _: Attributes, dims: DimValues, bodies: Sequence[Body], __: Sequence[Array]
) -> tuple[Array, ...]:
    return bodies[0 if arrays[0].item() else 1]((), dims)


def _expect_condition(op: str, type_: Type) -> None:
    if type_ != tensor(BOOL):
        raise mismatch(f"the condition of {op} is no truth value", str(tensor(BOOL)), type_)


def _infer_loop(types: Sequence[Type], attributes: Attributes, regions: Sequence[RegionType]) -> tuple[Type, ...]:
    index, trips = index_of(attributes), extent_of(attributes["trips"])
    scans, conditional = int_of(attributes, "scans"), flag_of(attributes, "conditional")
    carried, results = tuple(types), regions[0].results
    if conditional:
        expect_count("loop", types, 1, len(types))
        _expect_condition("loop", types[0])
        carried = carried[1:]
        if not results:
            raise mismatch("the region of a conditional loop gives no condition", str(tensor(BOOL)), "no results")
        _expect_condition("loop", results[0])
        results = results[1:]
    args = regions[0].args
    once_each = not conditional and not flag_of(attributes, "downward")
    if _at(args, index, 0) != carried or not (once_each or args == carried):
        raise mismatch("the region of loop takes other values", texts(carried), texts(args))
    following = _at(args, index, symbol(index) + 1)
    if scans < 0 or results[: len(results) - scans] != following:
        raise mismatch(f"the region of loop gives others, before {scans} slices", texts(following), texts(results))
    slices = results[len(carried) :]
    if any(index in symbols_of(extent) for type_ in slices for extent in type_.shape):
        raise mismatch("a slice of loop changes its shape", f"extents without {index}", texts(slices))
    return (*_at(args, index, trips), *(tensor(t.dtype, trips, *t.shape) for t in slices))


def _at(types: Sequence[Type], index: str, position: Extent) -> tuple[Type, ...]:
    """What the types of carried values are when the index has this value."""
    return tuple(tensor(t.dtype, *(substitute(e, {index: position}) for e in t.shape)) for t in types)


def _run_loop(
    arrays: Sequence[Array], attributes: Attributes, dims: DimValues, bodies: Sequence[Body], blanks: Sequence[Array]
) -> tuple[Array, ...]:
    index, trips = index_of(attributes), evaluate(extent_of(attributes["trips"]), dims)
    conditional = flag_of(attributes, "conditional")
    going = bool(arrays[0]) if conditional else True
    carried = tuple(arrays[1:] if conditional else arrays)
    stacked = blanks[len(carried) :]
    count = 0
    while going and count < trips:
        position = trips - 1 - count if flag_of(attributes, "downward") else count
        results = bodies[0](carried, {**dims, index: position})
        going = bool(results[0]) if conditional else True
        results = results[1:] if conditional else results
        carried = results[: len(carried)]
        for whole, part in zip(stacked, results[len(carried) :], strict=True):
            whole[position] = part
        count += 1
    return (*carried, *stacked)


def kept_of(attributes: Attributes) -> int:
    """How many of a checkpoint's results, the last ones, are values that its derivative reads."""
    return int_of(attributes, "kept")


def _infer_checkpoint(types: Sequence[Type], attributes: Attributes, regions: Sequence[RegionType]) -> tuple[Type, ...]:
    if not 0 <= kept_of(attributes) <= len(regions[0].results):
        raise mismatch("checkpoint keeps other values", "some of its results", kept_of(attributes))
    if regions[0].args != tuple(types):
        raise mismatch("the region of checkpoint takes other values", texts(types), texts(regions[0].args))
    return regions[0].results


def _run_checkpoint(
    arrays: Sequence[Array], _: Attributes, dims: DimValues, bodies: Sequence[Body], __: Sequence[Array]
) -> tuple[Array, ...]:
    return bodies[0](arrays, dims)


def _infer_stated(types: Sequence[Type], attributes: Attributes, regions: Sequence[RegionType]) -> tuple[Type, ...]:
    body, rule = regions
    back = attributes["rule"] == "cotangents"
    taken = (*types, *body.results, *(body.results if back else types))
    given = tuple(t for t in types if t.dtype.is_float) if back else body.results
    if body.args != tuple(types) or rule.args != taken:
        raise mismatch("the regions of stated take other values", texts(taken), texts(rule.args))
    if given != rule.results:
        raise mismatch("the regions of stated give other values", texts(given), texts(rule.results))
    return body.results


CONTROL: tuple[Op, ...] = (
    Op(
        "if",
        "(condition: bool[]) ({then}, {otherwise}) -> the results of the region that the condition chooses",
        None,
        None,
        control=Control(("then", "otherwise"), _infer_if, _run_if),
    ),
    Op(
        "loop",
        "([condition: bool[] if conditional,] carried...) <{index, trips, scans, conditional, downward}> ({body}) -> "
        "carried after the last iteration, then `scans` results stacked by index. The body runs for index = 0, 1, ... "
        "below `trips`, or from the last to 0 if `downward`, while the condition holds; it takes carried and gives "
        "([condition,] carried, slices). What iterations that do not run would have stacked is unspecified",
        None,
        None,
        ("index", "trips", "scans", "conditional", "downward"),
        {"scans": 0, "conditional": False, "downward": False},
        control=Control(("body",), _infer_loop, _run_loop),
    ),
    Op(
        "checkpoint",
        "(operands...) <{kept}> ({body}) -> what the body gives. Its derivative reads the operands and the last `kept` "
        "results, and computes the rest of the body again; a pass puts the body in its place",
        None,
        None,
        ("kept",),
        {"kept": 0},
        control=Control(("body",), _infer_checkpoint, _run_checkpoint),
    ),
    Op(
        "stated",
        "(operands...) <{rule}> ({body}, {derivative}) -> what the body gives of the operands. The second region is "
        "its derivative: where `rule` is tangents, what the results change by, of operands, results and operands' "
        "tangents; where it is cotangents, the gradients of the operands that are floats, of the operands, the results "
        "and the results' cotangents. A pass inlines the body",
        None,
        None,
        ("rule",),
        {"rule": "tangents"},
        control=Control(("body", "derivative"), _infer_stated, _run_checkpoint),
    ),
)
