"""Random small functions of every level, for property tests.

Takes Hypothesis's choices; gives functions that are legal at their level. Invariant: every kind of attribute that a
level has (extents, records, scalar programs, infinities) turns up.
"""

import math

from hypothesis import strategies as st

from tessera_build.ir.core.dims import Extent, floordiv, maximum, symbol
from tessera_build.ir.core.node import Function, Span
from tessera_build.ir.core.rewrite import FunctionBuilder
from tessera_build.ir.core.scalar import ScalarBuilder, ScalarProgram
from tessera_build.ir.core.types import BF16, BOOL, F16, F32, F64, I8, I32, I64, U8, DType, memref, scalar, tensor, tile
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.schedule.nodes import Access, Axis, Combine, Compute
from tessera_build.ir.target import kernel
from tessera_build.ir.tile.nodes import (
    Binding,
    Contract,
    For,
    If,
    Iota,
    Load,
    Map,
    Permute,
    Reduce,
    Store,
    View,
    ViewAxis,
)

FLOATS = (F64, F32, F16, BF16)
ORIGINS = st.sampled_from(["conv1/é\n", 'a "b"', "model.py"])
SPANS = st.none() | st.builds(Span, ORIGINS) | st.builds(Span, ORIGINS, st.integers(1, 99), st.integers(0, 9))


@st.composite
def scalar_programs(
    draw: st.DrawFn, inputs: tuple[DType, ...] | None = None, result: DType | None = None
) -> ScalarProgram:
    """A program over float inputs of one type; it gives one value of type `result`, or of the inputs' type."""
    dtype = draw(st.sampled_from(FLOATS)) if inputs is None else inputs[0] if inputs else (result or F32)
    given = inputs if inputs is not None else (dtype,) * draw(st.integers(0, 3))
    builder = ScalarBuilder(given)
    values = [i for i, d in enumerate(given) if d == dtype]
    values.append(builder.const(draw(st.floats(width=16) | st.sampled_from([math.inf, -math.inf, -0.0])), dtype))
    for _ in range(draw(st.integers(0, 5))):
        pick = st.sampled_from(values)
        name = draw(st.sampled_from(["add", "mul", "max", "neg", "exp", "fma", "select"]))
        if name == "select":
            values.append(builder.op("select", builder.op("lt", draw(pick), draw(pick)), draw(pick), draw(pick)))
        else:
            count = {"neg": 1, "exp": 1, "fma": 3}.get(name, 2)
            values.append(builder.op(name, *(draw(pick) for _ in range(count))))
    return builder.finish(builder.cast(values[-1], result or dtype))


def _extent(draw: st.DrawFn) -> Extent:
    n, s = symbol("N"), symbol("S")
    return draw(st.sampled_from([1, 3, n, n * 2 + 1, floordiv(n + s, 2), maximum(n, s) * s - 1]))


@st.composite
def graph_functions(draw: st.DrawFn) -> Function:
    """Elementwise chains and diamonds with constants, casts, symbolic shapes and spans."""
    b = FunctionBuilder(draw(st.sampled_from(["main", "prefill"])))
    shape = tuple(_extent(draw) for _ in range(draw(st.integers(0, 3))))
    dtype = draw(st.sampled_from([*FLOATS, I8, I32, U8, BOOL]))
    values = [b.arg(tensor(dtype, *shape)) for _ in range(draw(st.integers(1, 3)))]
    for _ in range(draw(st.integers(0, 6))):
        x, y = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        made = b.value(tensor(dtype, *shape))
        b.add(GraphNode("max", (x, y), (made,)), draw(SPANS))
        values.append(made)
    wide = b.emit(lambda r: GraphNode("cast", (values[-1],), (r,), {"dtype": F32}), tensor(F32, *shape))
    extent = b.emit(lambda r: GraphNode("dimension", (), (r,), {"dtype": I64, "value": symbol("N") * 2}), tensor(I64))
    return b.finish([wide, draw(st.sampled_from(values)), extent], {"note": "a", "sizes": (1, 2.5, True)})


@st.composite
def schedule_functions(draw: st.DrawFn) -> Function:
    """One or two definitions: a padded stencil with a reduction, then an elementwise one."""
    b = FunctionBuilder("task")
    n = _extent(draw)
    source = b.arg(tensor(F32, n, 8))
    i, j, k = symbol("i"), symbol("j"), symbol("k")
    pad = draw(st.none() | st.sampled_from([0.0, -math.inf, 1.5]))
    made = b.value(tensor(F32, n, 4))
    program = draw(scalar_programs((F32,), F32))
    axes, reduction = (Axis("i", n), Axis("j", 4)), (Axis("k", 2),)
    combines: list[Combine] = ["sum", "max", "min", "prod", "largest"]
    combine = draw(st.sampled_from(combines))
    b.add(Compute(made, (source,), (Access((i, j * 2 + k), pad),), axes, reduction, combine, program), draw(SPANS))
    if draw(st.booleans()):
        program = draw(scalar_programs((F32, I64), F32))
        read = Access((i, j))
        before, made = made, b.value(tensor(F32, n, 4))
        b.add(Compute(made, (before,), (read,), axes, (), "none", program, (i * 3 + 1,)), draw(SPANS))
    return b.finish([made])


BINDINGS = st.none() | st.builds(
    Binding,
    st.none() | st.sampled_from(["parallel", "serial"]),
    st.none() | st.sampled_from(["register", "stack"]),
    st.none(),
    st.none() | st.just("fma_6x64x1"),
    st.none() | st.integers(1, 3),
    st.just(value=False),
)


def _sum_of(dtype: DType) -> ScalarProgram:
    builder = ScalarBuilder([dtype, dtype])
    return builder.finish(builder.op("add", 0, 1))


@st.composite
def tile_functions(draw: st.DrawFn) -> Function:
    """A tiled product with an epilogue, ragged in both axes: args a [M, K], b [K, 8], out [M, 8]; dims M, K."""
    b = FunctionBuilder("product")
    m, k = symbol("M"), symbol("K")
    dtype = draw(st.sampled_from([F32, F16, BF16, I32]))
    a, w, out = b.arg(memref(dtype, m, k)), b.arg(memref(dtype, k, 8)), b.arg(memref(dtype, m, 8))
    rows, depth = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 3, 4]))
    names = draw(st.permutations(["i", "kk", "j"]))
    row, step = symbol(names[0]), symbol(names[1])
    checked = (ViewAxis(0, 1, checked=True), ViewAxis(1, 1, checked=True))
    bind = lambda: draw(BINDINGS)  # noqa: E731
    block = tile(dtype, rows, 8)
    with b.region() as outer:
        zero = ScalarBuilder([])
        start = b.emit(lambda r: Map(r, (), zero.finish(zero.const(0, dtype)), bind()), block, draw(SPANS))
        with b.region([block]) as inner:
            left = b.emit(lambda r: View(r, a, (row, step), checked, binding=bind()), memref(dtype, rows, depth))
            right = b.emit(lambda r: View(r, w, (step, 0), checked, binding=bind()), memref(dtype, depth, 8))
            acc = inner.args[0]
            if draw(st.booleans()):
                spec, lhs = "mk,kn->mn", b.emit(lambda r: Load(r, left, 0.0, bind()), tile(dtype, rows, depth))
            else:
                spec, lhs = "km,kn->mn", _transposed(b, left, dtype, (rows, depth))
            inner.yields(b.emit(lambda r: Contract(r, acc, lhs, right, spec, "seq", bind()), block))
        total = b.value(block)
        b.add(For((total,), names[1], k, depth, (start,), inner.region, bind()))
        result = _epilogue(draw, b, total, dtype, rows)
        target = b.emit(lambda r: View(r, out, (row, 0), checked, binding=bind()), memref(dtype, rows, 8))
        b.add(Store(target, result, bind()), draw(SPANS))
    b.add(For((), names[0], m, rows, (), outer.region, bind()))
    return b.finish((), {"dims": ("M", "K")})


def _transposed(b: FunctionBuilder, view: int, dtype: DType, shape: tuple[int, int]) -> int:
    loaded = b.emit(lambda r: Load(r, view), tile(dtype, *shape))
    return b.emit(lambda r: Permute(r, loaded, (1, 0)), tile(dtype, *reversed(shape)))


def _epilogue(draw: st.DrawFn, b: FunctionBuilder, value: int, dtype: DType, rows: int) -> int:
    """The value plus its row sums, or under a condition plus its column numbers."""
    block = tile(dtype, rows, 8)
    if draw(st.booleans()):
        order = draw(st.sampled_from(["seq", "tree(4)", "tree(1)"]))
        made = b.value(tile(dtype, rows, 1))
        b.add(Reduce((made,), (value,), (1,), _sum_of(dtype), (0.0,), order))
        return b.emit(lambda r: Map(r, (value, made), _sum_of(dtype)), block)
    with b.region() as then:
        numbers = b.emit(lambda r: Iota(r, 1, symbol("M")), tile(I32, rows, 8))
        builder = ScalarBuilder([dtype, I32])
        program = builder.finish(builder.op("add", 0, builder.cast(1, dtype)))
        then.yields(b.emit(lambda r: Map(r, (value, numbers), program), block))
    with b.region() as otherwise:
        otherwise.yields(value)
    result = b.value(block)
    b.add(If((result,), symbol("M"), "lt", symbol("K") * 2, then.region, otherwise.region))
    return result


@st.composite
def target_functions(draw: st.DrawFn) -> Function:
    """A kernel with a loop, masked memory, a branch and a check."""
    b = FunctionBuilder("kernel")
    dtype = draw(st.sampled_from([F32, F64, I32]))
    vector, flags = tile(dtype, 8), tile(BOOL, 8)
    source, target = b.arg(memref(dtype, 64)), b.arg(memref(dtype, 64))
    size, _ = b.arg(scalar(I64)), b.arg(scalar(I64))
    const = draw(st.sampled_from([0, 7])) if dtype == I32 else draw(st.floats())
    zero = b.emit(lambda r: kernel.Const(r, 0), scalar(I64))
    start = b.emit(lambda r: kernel.Const(r, const), vector)
    lanes = b.emit(lambda r: kernel.LaneIndex(r), tile(I64, 8))
    with b.region([scalar(I64), vector]) as body:
        index, acc = body.args
        limit = b.emit(lambda r: kernel.Splat(r, size), tile(I64, 8))
        mask = b.emit(lambda r: kernel.Op(r, "lt", (lanes, limit)), flags)
        use_other = draw(st.booleans())
        loaded = b.emit(lambda r: kernel.Load(r, source, index, mask, acc if use_other else None, 8), vector)
        total = b.emit(lambda r: kernel.Op(r, "add", (acc, loaded)), vector)
        order = tuple(draw(st.permutations(list(range(16)))))[:8]
        body.yields(b.emit(lambda r: kernel.Shuffle(r, total, acc, order), vector))
        b.add(kernel.Prefetch(source, index, draw(st.integers(1, 3))))
    result = b.value(vector)
    b.add(kernel.Loop((result,), zero, size, 8, (start,), body.region), draw(SPANS))
    holds = b.emit(lambda r: kernel.Op(r, "ge", (size, zero)), scalar(BOOL))
    b.add(kernel.Check(holds, 1))
    b.add(kernel.Store(target, zero, result, None, 64, draw(st.booleans())))
    return b.finish((), {"dims": ("N",)})
