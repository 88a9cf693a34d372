"""Programs that torch traced as Graph IR: a table of its core operators, enough for its own sample inputs.

Takes a traced graph and the arrays it was traced with; gives a module. Invariant: a program with an operator, a type or
an argument that has no row raises `Unmapped`; nothing is translated by halves.
"""

# ruff: noqa: ANN401  values of traced programs are anything

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from tessera_build.ir.core.types import BOOL, F64, I64, tensor
from tessera_build.ir.graph.nodes import Module
from tests.autodiff.aten_arithmetic import ARITHMETIC
from tests.autodiff.aten_indexing import INDEXED
from tests.autodiff.aten_matrices import MATRICES
from tests.autodiff.aten_windows import WINDOWS
from tests.autodiff.aten_writer import DTYPES, Row, Unmapped, Value, Writer, element_type


def _view(w: Writer, x: Value, shape: Sequence[int]) -> int:
    sizes, total = list(shape), math.prod(w.shape(x.id))
    if -1 in sizes:
        known = math.prod(s for s in sizes if s != -1)
        sizes[sizes.index(-1)] = total // known if known else 0
    return w.reshape(x.id, sizes)


def _expand(w: Writer, x: Value, shape: Sequence[int], implicit: bool = False) -> int:
    own = w.shape(x.id)
    more = len(shape) - len(own)
    sizes = tuple(own[i - more] if s == -1 else s for i, s in enumerate(shape))
    return w.b.op("broadcast_to", x.id, shape=sizes)


def _permute(w: Writer, x: Value, dims: Sequence[int]) -> int:
    return w.b.op("transpose", x.id, perm=tuple(d % len(dims) for d in dims)) if dims else x.id


def _swap(w: Writer, x: Value, a: int = 0, b: int = 1) -> int:
    rank = len(w.shape(x.id))
    if rank < 2:
        return x.id
    perm = list(range(rank))
    perm[a], perm[b] = perm[b], perm[a]
    return w.b.op("transpose", x.id, perm=tuple(perm))


def _unsqueeze(w: Writer, x: Value, dim: int) -> int:
    shape = list(w.shape(x.id))
    shape.insert(dim % (len(shape) + 1), 1)
    return w.reshape(x.id, shape)


def _squeeze(w: Writer, x: Value, dim: Any = None) -> int:
    shape = w.shape(x.id)
    dims = range(len(shape)) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {d % max(len(shape), 1) for d in dims}
    return w.reshape(x.id, [s for i, s in enumerate(shape) if s != 1 or i not in gone])


def _slice(w: Writer, x: Value, dim: int = 0, start: Any = None, stop: Any = None, step: int = 1) -> int:
    shape = w.shape(x.id)
    dim %= len(shape)
    low, high, _ = slice(start, stop).indices(shape[dim])
    starts, stops, steps = [0] * len(shape), list(shape), [1] * len(shape)
    starts[dim], stops[dim], steps[dim] = low, max(low, high), step
    return w.b.op("slice", x.id, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def _select(w: Writer, x: Value, dim: int, index: int) -> int:
    shape = w.shape(x.id)
    dim %= len(shape)
    index %= shape[dim]
    return w.reshape(_slice(w, x, dim, index, index + 1), shape[:dim] + shape[dim + 1 :])


def _cat(w: Writer, xs: Sequence[Value], dim: int = 0) -> int:
    kept = [x.id for x in xs if w.shape(x.id) != (0,)]
    if len({w.type(x).dtype for x in kept}) != 1:
        raise Unmapped("tensors of several types side by side")
    return w.b.op("concat", *kept, axis=dim % len(w.shape(kept[0])))


def _split(w: Writer, x: Value, sizes: Any, dim: int = 0) -> list[int]:
    extent = w.shape(x.id)[dim]
    parts = [min(sizes, extent - i) for i in range(0, extent, sizes)] if isinstance(sizes, int) else sizes
    starts = np.cumsum([0, *parts])
    return [_slice(w, x, dim, int(a), int(b)) for a, b in pairwise(starts)]


def _pad(w: Writer, x: Value, pads: Sequence[int], value: float = 0.0) -> int:
    rank = len(w.shape(x.id))
    low, high = [0] * rank, [0] * rank
    for i in range(len(pads) // 2):
        low[rank - 1 - i], high[rank - 1 - i] = pads[2 * i], pads[2 * i + 1]
    shape = w.shape(x.id)
    cut = w.b.op(
        "slice",
        x.id,
        starts=tuple(max(0, -p) for p in low),
        stops=tuple(s - max(0, -p) for s, p in zip(shape, high, strict=True)),
        steps=(1,) * rank,
    )
    return w.b.op(
        "pad", cut, low=tuple(max(0, p) for p in low), high=tuple(max(0, p) for p in high), value=float(value)
    )


def _flip(w: Writer, x: Value, dims: Sequence[int]) -> int:
    made, shape = x.id, w.shape(x.id)
    for dim in {d % len(shape) for d in dims} if shape else ():
        made = w.b.op("gather", made, w.b.constant(np.arange(shape[dim])[::-1].copy()), axis=dim)
    return made


def _full(w: Writer, shape: Sequence[int], value: Any, dtype: Any = None, **_: Any) -> int:
    guessed = F64 if isinstance(value, float) else I64
    chosen = element_type(dtype) if dtype is not None else BOOL if isinstance(value, bool) else guessed
    return w.b.op("broadcast_to", w.b.scalar(value, chosen), shape=tuple(shape))


def _full_like(w: Writer, x: Value, value: Any = 0, dtype: Any = None, **_: Any) -> int:
    chosen = w.type(x.id).dtype if dtype is None else element_type(dtype)
    return w.b.op("broadcast_to", w.b.scalar(value, chosen), shape=w.shape(x.id))


def _new(w: Writer, x: Value, shape: Sequence[int], value: Any, dtype: Any = None, **_: Any) -> int:
    chosen = w.type(x.id).dtype if dtype is None else element_type(dtype)
    return w.b.op("broadcast_to", w.b.scalar(value, chosen), shape=tuple(shape))


def _arange(w: Writer, *bounds: Any, dtype: Any = None, **_: Any) -> int:
    chosen = dtype or (torch.int64 if all(isinstance(b, int) for b in bounds) else torch.float64)
    return w.b.constant(torch.arange(*bounds, dtype=chosen).numpy())


def _to_copy(w: Writer, x: Value, dtype: Any = None, **_: Any) -> int:
    return x.id if dtype is None else w.cast(x.id, element_type(dtype))


def _lined(row: Row) -> Row:
    """A row over axes that takes numbers, too: each is a vector of one element meanwhile."""

    def wide(w: Writer, x: Value, *rest: Any, **named: Any) -> Any:
        if w.shape(x.id):
            return row(w, x, *rest, **named)
        given = [Value(w.reshape(v.id, (1,))) if _is_number(w, v) else v for v in (x, *rest)]
        named = {k: Value(w.reshape(v.id, (1,))) if _is_number(w, v) else v for k, v in named.items()}
        found = row(w, *given, **named)
        whole = [w.reshape(v, ()) for v in (found if isinstance(found, (list, tuple)) else (found,))]
        return whole if isinstance(found, (list, tuple)) else whole[0]

    return wide


def _is_number(w: Writer, x: Any) -> bool:
    return isinstance(x, Value) and not w.shape(x.id)


def _gather(w: Writer, x: Value, dim: int, index: Value, **_: Any) -> int:
    if w.shape(index.id) == (0,):
        raise Unmapped("nothing chosen")
    if not w.shape(x.id):
        found = w.b.op(
            "gather_elements", w.reshape(x.id, (1,)), w.reshape(index.id, (w.count(index.id, None),)), axis=0
        )
        return w.reshape(found, w.shape(index.id))
    return w.b.op("gather_elements", x.id, index.id, axis=dim % len(w.shape(x.id)))


def _index_select(w: Writer, x: Value, dim: int, index: Value) -> int:
    chosen = index.id if w.shape(index.id) else w.reshape(index.id, (1,))
    return w.b.op("gather", x.id, chosen, axis=dim % len(w.shape(x.id)))


def _embedding(w: Writer, table: Value, index: Value, padding: int = -1, *_: Any) -> int:
    if padding != -1:
        raise Unmapped("a row without gradient")
    return w.b.op("gather", table.id, index.id, axis=0)


def _scatter(reduction: str) -> Row:
    def row(w: Writer, x: Value, dim: int, index: Value, source: Any, reduce: Any = None) -> int:
        kind = {"add": "add", "multiply": "mul", None: reduction}[reduce]
        updates = source.id if isinstance(source, Value) else w.value(source, w.type(x.id).dtype)
        shape = w.shape(index.id)
        if isinstance(source, Value):
            zeros = (0,) * len(shape)
            updates = w.b.op("slice", updates, starts=zeros, stops=shape, steps=(1,) * len(shape))
        else:
            updates = w.b.op("broadcast_to", updates, shape=shape)
        axis = dim % len(w.shape(x.id))
        return w.b.op("scatter_elements", x.id, index.id, updates, axis=axis, reduction=kind)

    return row


# The way to combine, and where to start from if not from what stands there.
COMBINED = {"sum": ("add", 0.0), "prod": ("mul", 1.0), "amax": ("max", -math.inf), "amin": ("min", math.inf)}


def _scatter_reduce(
    w: Writer, x: Value, dim: int, index: Value, source: Value, reduce: str, *, include_self: bool = True
) -> int:
    if reduce not in COMBINED:
        raise Unmapped("a mean")
    kind, start = COMBINED[reduce]
    if not include_self:
        x = Value(_scatter("none")(w, x, dim, index, start))
    return _scatter(kind)(w, x, dim, index, source)


def _cumulate(kind: str) -> Row:
    def row(w: Writer, x: Value, dim: int, dtype: Any = None) -> int:
        shape = w.shape(x.id)
        dim %= len(shape)
        x = x if dtype is None else Value(w.cast(x.id, element_type(dtype)))
        lined = w.reshape(x.id, (math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])))
        return w.reshape(w.b.op("cumulate", lined, kind=kind), shape)

    return row


def _topk(w: Writer, x: Value, k: int, dim: int = -1, largest: bool = True, _: bool = True) -> tuple[int, int]:
    shape = w.shape(x.id)
    dim %= len(shape)
    perm = [i for i in range(len(shape)) if i != dim] + [dim]
    moved = w.b.op("transpose", x.id, perm=tuple(perm))
    lined = w.reshape(moved, (math.prod(shape) // shape[dim], shape[dim]))
    back = tuple(perm.index(i) for i in range(len(shape)))
    results = w.b.node("top_k", (lined,), {"k": k, "largest": largest})
    whole = [*(shape[i] for i in perm[:-1]), k]
    first, second = (w.b.op("transpose", w.reshape(r, whole), perm=back) for r in results)
    return first, second


def _sort(w: Writer, x: Value, dim: int = -1, descending: bool = False, **_: Any) -> tuple[int, int]:
    return _topk(w, x, w.shape(x.id)[dim], dim, descending)


def _repeat(w: Writer, x: Value, times: Sequence[int]) -> int:
    shape = (1,) * (len(times) - len(w.shape(x.id))) + w.shape(x.id)
    split = [n for s in shape for n in (1, s)]
    wide = tuple(n for t, s in zip(times, shape, strict=True) for n in (t, s))
    whole = w.b.op("broadcast_to", w.reshape(x.id, split), shape=wide)
    return w.reshape(whole, [t * s for t, s in zip(times, shape, strict=True)])


def _same(w: Writer, x: Value, *_: Any, **__: Any) -> int:
    return x.id


ROWS: dict[str, Row] = {
    **ARITHMETIC,
    **MATRICES,
    **WINDOWS,
    **{name: _lined(row) for name, row in INDEXED.items()},
    **{name: _lined(ARITHMETIC[name]) for name in ("_softmax", "_log_softmax")},
    "logcumsumexp": _lined(MATRICES["logcumsumexp"]),
    **dict.fromkeys(("clone", "detach", "alias", "contiguous", "lift_fresh_copy", "view_of", "positive"), _same),
    "view": _view,
    "_unsafe_view": _view,
    "reshape": _view,
    "expand": _expand,
    "permute": _permute,
    "transpose": _swap,
    "t": _swap,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "slice": _slice,
    "select": _select,
    "cat": _cat,
    "split": _split,
    "split_with_sizes": _split,
    "unbind": lambda w, x, dim=0: [_select(w, x, dim, i) for i in range(w.shape(x.id)[dim])],
    "constant_pad_nd": _pad,
    "flip": _flip,
    "repeat": _repeat,
    "full": _full,
    "zeros": lambda w, shape, **k: _full(w, shape, 0.0, **k),
    "ones": lambda w, shape, **k: _full(w, shape, 1.0, **k),
    "full_like": _full_like,
    "zeros_like": _full_like,
    "ones_like": lambda w, x, **k: _full_like(w, x, 1, **k),
    "scalar_tensor": lambda w, x, **k: _full(w, (), x, **k),
    **dict.fromkeys(("empty", "empty_permuted", "empty_strided"), lambda w, shape, *_, **k: _full(w, shape, 0.0, **k)),
    **dict.fromkeys(("new_empty", "new_empty_strided"), lambda w, x, shape, *_, **k: _new(w, x, shape, 0.0, **k)),
    "new_zeros": lambda w, x, shape, **k: _new(w, x, shape, 0.0, **k),
    "new_ones": lambda w, x, shape, **k: _new(w, x, shape, 1.0, **k),
    "new_full": _new,
    "empty_like": _full_like,
    "arange": _arange,
    "_to_copy": _to_copy,
    "gather": _gather,
    "index_select": _lined(_index_select),
    "embedding": _embedding,
    "scatter": _lined(_scatter("none")),
    "scatter_add": _lined(_scatter("add")),
    "scatter_reduce": _lined(_scatter_reduce),
    "cumsum": _lined(_cumulate("sum")),
    "cumprod": _lined(_cumulate("prod")),
    "topk": _lined(_topk),
    "sort": _lined(_sort),
}


def module_of(graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]) -> tuple[Module, list[bool]]:
    """The program with inputs x0, x1, ... and outputs y0, y1, ...; and which of its results are tensors."""
    w, made, given = Writer(), dict[torch.fx.Node, Any](), iter(range(len(inputs)))
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            position = next(given)
            data = inputs[position]
            plain = data.is_contiguous() and data.storage_offset() == 0
            made[node] = Value(w.b.input(f"x{position}", tensor(element_type(data.dtype), *data.shape)), plain=plain)
        elif node.op == "get_attr":
            constant = getattr(graph, node.target)
            if not isinstance(constant, torch.Tensor) or constant.dtype not in DTYPES:
                raise Unmapped("a constant")
            made[node] = Value(w.b.constant(constant.detach().numpy()))
        elif node.op == "call_function":
            made[node] = _call(w, node, made)
        elif node.op == "output":
            results = torch.fx.node.map_arg(node.args[0], lambda n: made[n])
            return _finish(w, results)
    raise Unmapped("a program without results")


def _finish(w: Writer, results: Any) -> tuple[Module, list[bool]]:
    found = list(results) if isinstance(results, (list, tuple)) else [results]
    there = [isinstance(r, Value) for r in found]
    for position, value in enumerate(r for r in found if isinstance(r, Value)):
        w.b.output(f"y{position}", value.id)
    return w.b.finish(), there


# What gives the memory of an operand, or a part of it.
_VIEWS = (
    "alias as_strided detach diagonal expand permute select slice split split_with_sizes squeeze t transpose unbind"
)
VIEWS = frozenset((*_VIEWS.split(), "unsqueeze", "view", "_unsafe_view"))
# What may give its operand's memory; every other operator's result lies in memory of its own.
BORROWED = VIEWS | {"reshape", "contiguous", "positive", "lift_fresh_copy", "view_of", "_to_copy", "broadcast_in_dim"}
# What gives an operand another shape in place.
SHAPED = ("squeeze_", "unsqueeze_", "transpose_")


def _call(w: Writer, node: torch.fx.Node, made: dict[torch.fx.Node, Any]) -> Any:
    args, kwargs = (torch.fx.node.map_arg(part, lambda n: made[n]) for part in (node.args, node.kwargs))
    if node.target is operator.getitem:
        return args[0][args[1]]
    name = _name(node)
    if name in ("copy_", *SHAPED):
        return _in_place(w, name.removesuffix("_"), node, made)
    if name not in ROWS:
        raise Unmapped(name)
    if args and args[0] is None:  # a result that no row gives, on its way to nobody
        return None
    kwargs = {k: v for k, v in kwargs.items() if k not in ("memory_format", "layout", "device", "pin_memory")}
    try:
        result = ROWS[name](w, *args, **kwargs)
    except (TypeError, AttributeError, IndexError, ZeroDivisionError) as error:
        raise Unmapped(f"{name}: {error}") from error
    if result is None:
        return None
    if isinstance(result, (list, tuple)):
        return [None if r is None else Value(r) for r in result]
    return Value(result, plain=name not in VIEWS and _lies_row_by_row(node))


def _name(node: torch.fx.Node) -> str:
    return str(getattr(node.target, "_schema").name).split("::")[-1]  # noqa: B009


def _lies_row_by_row(node: torch.fx.Node) -> bool:
    known = node.meta.get("tensor_meta")
    return known is not None and known.stride == torch.empty(known.shape, device="meta").stride()


def _in_place(w: Writer, name: str, node: torch.fx.Node, made: dict[torch.fx.Node, Any]) -> Any:
    """What a node changes is its result from here on, where nobody else looks at the same memory."""
    (changed, *rest) = node.args
    assert isinstance(changed, torch.fx.Node)
    seen = [u for u in changed.users if u.op == "call_function" and _name(u) in VIEWS] if name == "copy" else []
    own = changed.op == "placeholder" or (hasattr(changed.target, "_schema") and _name(changed) not in BORROWED)
    if seen or not (own or name != "copy"):
        raise Unmapped(f"{name} into a view")
    args = torch.fx.node.map_arg(tuple(rest), lambda n: made[n])
    made[changed] = Value(ROWS[name](w, made[changed], *args))
    return made[changed]
