"""Draws of the op `random`: published vectors, exact mappings, statistics, and compiled code with the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.philox import UNIFORM_BITS, draw, philox
from tessera_build.ir.core.rewrite import FunctionBuilder
from tessera_build.ir.core.scalar import ScalarBuilder, evaluate
from tessera_build.ir.core.types import BF16, F16, F32, F64, I32, I64, U32, U64, DType, memref, tensor, tile
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.infer import infer
from tessera_build.ir.graph.nodes import Array, GraphNode, Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.machine.group import SPIRV
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.graph_to_schedule.defining import Context
from tessera_build.lower.graph_to_schedule.random import define_random
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.tile_to_target.bind_group import BindGroup
from tessera_build.lower.tile_to_target.simt import lower_group
from tests.lower.compiled import compile_module
from tests.random.philox import block, correlations, distance_to_normal, distance_to_uniform, words
from tests.spirv.opencl import run_group_kernel

NORMAL_ULP = 5.0  # log within 1 and halved by the root, cos within 2, and three roundings of half a unit
KEY = 0x0123456789ABCDEF
ONES = 2**32 - 1
# Of Random123's file of known answers: counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
MACHINES = [
    CpuMachine("scalar", lanes=1, registers=16, fused=False),
    CpuMachine("sse", lanes=4, registers=16, fused=False),
    CpuMachine("avx2", lanes=8, registers=16, fused=True),
    CpuMachine("avx512", lanes=16, registers=32, fused=True),
]


def _drawing(kind: str, dtype: DType, shape: tuple[int, ...], key: int | None = None) -> Module:
    builder = GraphBuilder()
    given = builder.input("key", tensor(U64)) if key is None else builder.constant(np.asarray(key, np.uint64))
    builder.output("y", builder.op("random", given, kind=kind, shape=shape, dtype=dtype))
    return builder.finish()


def _drawn(kind: str, dtype: DType, count: int, key: int = KEY) -> Array:
    return reference.run(_drawing(kind, dtype, (count,)), "main", {"key": np.asarray(key, np.uint64)})["y"]


@pytest.mark.unit
@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_philox_when_given_published_counters_then_gives_the_published_words(
    counter: tuple[int, int, int, int], key: tuple[int, int], result: tuple[int, int, int, int]
) -> None:
    b = ScalarBuilder([U32] * 6)
    program = b.finish(*philox(b, (0, 1, 2, 3), (4, 5)))
    found = evaluate(program, [np.asarray([word], np.uint32) for word in (*counter, *key)])
    assert tuple(int(word[0]) for word in found) == result
    assert block(counter, key) == result


@pytest.mark.unit
def test_draws_when_compared_with_pythons_integers_then_are_their_words() -> None:
    blocks = [words(KEY, number) for number in range(50)]
    assert _drawn("bits", U32, 50).tolist() == [b[0] for b in blocks]
    assert _drawn("bits", U64, 50).tolist() == [b[0] + (b[1] << 32) for b in blocks]
    assert _drawn("uniform", F32, 50).tolist() == [(b[0] >> 8) * 2.0**-24 for b in blocks]
    assert _drawn("uniform", F64, 50).tolist() == [((b[0] + (b[1] << 32)) >> 11) * 2.0**-53 for b in blocks]
    assert _drawn("uniform", F16, 50).tolist() == [(b[0] >> 21) * 2.0**-11 for b in blocks]
    assert _drawn("uniform", BF16, 50).astype(np.float64).tolist() == [(b[0] >> 24) * 2.0**-8 for b in blocks]


@pytest.mark.unit
@pytest.mark.parametrize("dtype", UNIFORM_BITS, ids=str)
def test_uniform_when_all_bits_are_set_then_is_below_one(dtype: DType) -> None:
    bits = UNIFORM_BITS[dtype]
    largest = np.asarray((2**bits - 1) * 2.0**-bits).astype(dtype.numpy)
    assert float(largest) == 1 - 2.0**-bits < 1


@pytest.mark.numerics
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("key", [0, 1, KEY, 2**64 - 1])
def test_uniform_when_many_are_drawn_then_they_are_uniform_and_independent(dtype: DType, key: int) -> None:
    draws = _drawn("uniform", dtype, 1 << 16, key).astype(np.float64)
    root = np.sqrt(draws.size)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 1 / 2) * root < 4 * np.sqrt(1 / 12)
    assert abs(draws.var() - 1 / 12) * root < 4 * np.sqrt(1 / 180)
    assert distance_to_uniform(draws) < 1.95  # exceeded by one sample in a thousand
    assert max(map(abs, correlations(draws, (1, 2, 3, 4, 8, 16, 256)))) < 4


@pytest.mark.numerics
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("key", [0, 1, KEY])
def test_normal_when_many_are_drawn_then_they_are_normal_and_independent(dtype: DType, key: int) -> None:
    draws = _drawn("normal", dtype, 1 << 16, key).astype(np.float64)
    root = np.sqrt(draws.size)
    assert abs(draws.mean()) * root < 4
    assert abs(draws.var() - 1) * root < 4 * np.sqrt(2)
    assert abs(np.mean(draws**3)) * root < 4 * np.sqrt(15)
    assert abs(np.mean(draws**4) - 3) * root < 4 * np.sqrt(96)
    assert distance_to_normal(draws) < 1.95
    assert max(map(abs, correlations(draws, (1, 2, 4, 16)))) < 4
    assert max(map(abs, correlations(draws**2, (1, 2, 4, 16)))) < 4


@pytest.mark.numerics
def test_draws_when_keys_are_neighbours_then_are_independent() -> None:
    first, second = (_drawn("uniform", F32, 1 << 16, key).astype(np.float64) - 0.5 for key in (7, 8))
    assert abs(np.mean(first * second)) * 12 * 256 < 4


# -- compiled ---------------------------------------------------------------------------------------------------------


@pytest.mark.numerics
@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_compiled_when_lanes_and_threads_differ_then_bits_are_those_of_the_reference(machine: CpuMachine) -> None:
    builder = GraphBuilder(dims={"N": (1, None)})
    key = builder.input("key", tensor(I64))
    builder.input("x", tensor(F32, symbol("N")))
    shape = (3, symbol("N"), 7)
    for kind, dtype in (("bits", U32), ("bits", U64), *(("uniform", d) for d in UNIFORM_BITS)):
        builder.output(f"{kind}_{dtype}", builder.op("random", key, kind=kind, shape=shape, dtype=dtype))
    compiled = compile_module(builder.finish(), machine)
    for size in (1, 5, 33):
        inputs = {"key": np.asarray(-size, np.int64), "x": np.zeros(size, np.float32)}
        expected = reference.run(compiled.module, "main", inputs)
        for threads in (1, 2):
            found = compiled.run(inputs, {"N": size}, threads)
            assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in expected.items()}


@pytest.mark.numerics
@pytest.mark.parametrize(("kind", "dtype"), [("bits", U64), ("uniform", F32), ("uniform", F64)], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (40000,), (5, 1, 9), (0, 3), (70, 1000)], ids=str)
def test_compiled_when_the_key_is_known_then_bits_are_the_same(kind: str, dtype: DType, shape: tuple[int, ...]) -> None:
    found = compile_module(_drawing(kind, dtype, shape, KEY)).run({}, {}, 2)["y"]
    expected = reference.run(_drawing(kind, dtype, shape), "main", {"key": np.asarray(KEY, np.uint64)})["y"]
    assert found.shape == shape
    assert found.tobytes() == expected.tobytes()


@pytest.mark.numerics
@pytest.mark.parametrize(("dtype", "count"), [(F32, 1 << 18), (F64, 1 << 14)], ids=str)
def test_compiled_normals_when_swept_then_are_within_5_ulp(dtype: DType, count: int) -> None:
    found = compile_module(_drawing("normal", dtype, (count,), KEY)).run({}, {}, 2)["y"].astype(np.longdouble)
    exact = _exact_normals(dtype, count)
    unit = np.spacing(np.abs(exact).astype(np.float32 if dtype == F32 else np.float64))
    assert float(np.max(np.abs(found - exact) / unit)) <= NORMAL_ULP


def _exact_normals(dtype: DType, count: int) -> np.ndarray[tuple[int], np.dtype[np.longdouble]]:
    """sqrt(-2 log u) * cos(angle) of the rounded u and angle, with more digits."""
    both = _drawn("bits", U64, count).astype(np.uint64)
    low, high = both & np.uint64(ONES), both >> np.uint64(32)
    if dtype == F32:
        u = low.astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)
        angle = high.astype(np.uint32).view(np.int32).astype(np.float32) * np.float32(2 * np.pi * 2.0**-32)
    else:
        pairs = np.asarray([words(KEY, i)[2:] for i in range(count)], np.uint64)
        turned = (pairs[:, 0] | pairs[:, 1] << np.uint64(32)).view(np.int64) >> np.int64(11)
        u = ((both >> np.uint64(11)).astype(np.float64) + 1) * 2.0**-53
        angle = turned.astype(np.float64) * (2 * np.pi * 2.0**-53)
    return np.sqrt(-2 * np.log(u.astype(np.longdouble))) * np.cos(angle.astype(np.longdouble))


@pytest.mark.numerics
def test_compiled_when_a_draw_meets_elementwise_nodes_then_they_are_one_launch() -> None:
    builder = GraphBuilder()
    x, key = builder.input("x", tensor(F32, 4, 100)), builder.constant(np.asarray(KEY, np.uint64))
    noise = builder.op("random", key, kind="uniform", shape=(4, 100), dtype=F32)
    kept = builder.op("ge", noise, builder.scalar(0.25, F32))
    builder.output("y", builder.op("select", kept, x, builder.scalar(0.0, F32)))
    module, inputs = builder.finish(), {"x": np.ones((4, 100), np.float32)}
    found = compile_module(module).run(inputs, {})["y"]
    np.testing.assert_array_equal(found, reference.run(module, "main", inputs)["y"])
    assert sum(len(records) for records in lower_module(module, MACHINES[3]).launches) == 1


@pytest.mark.unit
def test_draw_when_elements_lie_beyond_32_bits_then_the_high_word_counts() -> None:
    numbers = np.asarray([2**32 - 1, 2**32, 2**40 + 5], np.int64)
    (found,) = evaluate(draw("bits", U32, KEY, far=True), [numbers])
    assert found.tolist() == [words(KEY, int(number))[0] for number in numbers]


@pytest.mark.unit
@pytest.mark.parametrize(("shape", "far"), [((2**16, 2**16), False), ((2**16, 2**16, 2), True), ((symbol("N"),), True)])
def test_definition_when_a_tensor_is_long_or_dynamic_then_numbers_have_64_bits(
    shape: tuple[Extent, ...], far: bool
) -> None:
    types = {0: tensor(U64), 1: tensor(U32, *shape)}
    node = GraphNode("random", (0,), (1,), {"kind": "bits", "shape": shape, "dtype": U32})
    (compute,) = define_random(node, Context(types, {0: np.asarray(KEY, np.uint64)}))
    assert compute.program == draw("bits", U32, KEY, far)


@pytest.mark.numerics
@pytest.mark.spirv
@pytest.mark.parametrize(("kind", "dtype"), [("bits", U64), ("uniform", F32)], ids=str)
def test_lanes_of_a_device_when_they_draw_then_bits_are_those_of_the_reference(kind: str, dtype: DType) -> None:
    b = FunctionBuilder("draw")
    out = b.arg(memref(dtype, 512))
    numbers = b.emit(lambda r: t.Iota(r, 0, 0), tile(I64, 512))
    drawn = b.emit(lambda r: t.Map(r, (numbers,), draw(kind, dtype, KEY, far=True)), tile(dtype, 512))
    view = b.emit(lambda r: t.View(r, out, (0,), (t.ViewAxis(0),)), memref(dtype, 512))
    b.add(t.Store(view, drawn))
    found = np.zeros(512, dtype.numpy)
    run_group_kernel(lower_group(BindGroup(SPIRV).run(b.finish()), SPIRV.lanes), [found], {})
    assert found.tobytes() == _drawn(kind, dtype, 512).tobytes()


@pytest.mark.errors
@pytest.mark.parametrize(
    ("key", "attributes", "text"),
    [
        (tensor(F32), {"kind": "bits", "dtype": U32}, "key"),
        (tensor(U64, 2), {"kind": "bits", "dtype": U32}, "key"),
        (tensor(U64), {"kind": "bits", "dtype": F32}, "bits"),
        (tensor(U64), {"kind": "uniform", "dtype": I32}, "uniform"),
        (tensor(U64), {"kind": "poisson", "dtype": F32}, "kind"),
    ],
)
def test_random_when_it_does_not_fit_then_says_why(key: object, attributes: dict[str, object], text: str) -> None:
    with pytest.raises(TesseraError, match=text):
        infer("random", [key], {**attributes, "shape": (2,)})  # type: ignore[arg-type]
