"""A group of lanes in numpy: runs group kernels of Target IR with NVIDIA's matrix instructions, without a GPU.

Takes a lowered kernel, buffers and dims; changes the buffers in place. A value is an array with one entry a lane; all
lanes run in step, so a missing barrier is not seen here. Copies land only when waited for: until then their target
holds NaN. Invariant: the fragment layouts are written from the PTX manual's figures, apart from the code under test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.dims import evaluate
from tessera_build.ir.core.node import Node
from tessera_build.ir.target import group as g
from tessera_build.ir.target import kernel as k
from tessera_build.lower.tile_to_target.simt import GroupKernel

Array = NDArray[np.generic]

_OPERATIONS: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": lambda a, b: a // b,  # index arithmetic only, which is never negative
    "rem": np.remainder,
    "lt": np.less,
    "ge": np.greater_equal,
    "and": np.logical_and,
    "select": np.where,
}


def simulate(lowered: GroupKernel, buffers: Sequence[Array], dims: Mapping[str, int]) -> None:
    """Run every group, one after another."""
    kernel = lowered.kernel
    names = kernel.attributes["dims"]
    assert isinstance(names, tuple)
    for index in range(evaluate(lowered.groups, dims)):
        group = _Group(lowered, index)
        scalars = [np.full(lowered.lanes, dims[str(name)], np.int64) for name in names]
        for argument, value in zip(kernel.args, [*(b.reshape(-1) for b in buffers), *scalars], strict=True):
            (group.memory if kernel.types[argument].container == "memref" else group.values)[argument] = value
        group.block(kernel.nodes)


@dataclass(slots=True)
class _Group:
    lowered: GroupKernel
    index: int
    values: dict[int, Array] = field(default_factory=dict[int, Array])
    memory: dict[int, Array] = field(default_factory=dict[int, Array])
    started: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])
    batches: list[list[Callable[[], None]]] = field(default_factory=list[list[Callable[[], None]]])

    @property
    def lanes(self) -> int:
        return self.lowered.lanes

    def block(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            _RULES[type(node)](self, node)


def _const(group: _Group, node: k.Const) -> None:
    dtype = group.lowered.kernel.types[node.result].dtype.numpy
    group.values[node.result] = np.full(group.lanes, node.value, dtype)


def _op(group: _Group, node: k.Op) -> None:
    operands = [group.values[o] for o in node.operands]
    if node.name == "cast":
        group.values[node.result] = operands[0].astype(group.lowered.kernel.types[node.result].dtype.numpy)
    else:
        group.values[node.result] = _OPERATIONS[node.name](*operands)


def _lane(group: _Group, node: g.Lane) -> None:
    group.values[node.result] = np.arange(group.lanes)


def _group_index(group: _Group, node: g.GroupIndex) -> None:
    group.values[node.result] = np.full(group.lanes, group.index)


def _shared(group: _Group, node: g.SharedAlloc) -> None:
    dtype = group.lowered.kernel.types[node.result].dtype.numpy
    group.memory[node.result] = np.full(node.elements, np.nan).astype(dtype)


def _mask(group: _Group, value: int | None) -> NDArray[np.bool_]:
    return np.ones(group.lanes, np.bool_) if value is None else group.values[value].astype(np.bool_)


def _indices(group: _Group, value: int) -> NDArray[np.int64]:
    return group.values[value].astype(np.int64)


def _store(group: _Group, node: k.Store) -> None:
    mask = _mask(group, node.mask)
    group.memory[node.pointer][_indices(group, node.index)[mask]] = group.values[node.value][mask]


def _loop(group: _Group, node: k.Loop) -> None:
    values = group.values
    (start,), (stop,) = np.unique(values[node.start]), np.unique(values[node.stop])
    carried = [values[c] for c in node.carried]
    for index in range(int(start), int(stop), node.step):
        values.update(zip(node.body.args, [np.full(group.lanes, index), *carried], strict=True))
        group.block(node.body.nodes)
        carried = [values[r] for r in node.body.results]
    values.update(zip(node.results, carried, strict=True))


def _async_copy(group: _Group, node: g.AsyncCopy) -> None:
    target, source = group.memory[node.target], group.memory[node.source]
    count = node.count // source.dtype.itemsize
    indices = (_indices(group, node.target_index), _indices(group, node.source_index))
    moves = list(zip(*indices, _mask(group, node.mask), strict=True))
    assert all(to % count == 0 and (not holds or at % count == 0) for to, at, holds in moves), "16-byte alignment"
    for to, _, _ in moves:
        target[to : to + count] = np.nan

    def land() -> None:
        for to, at, holds in moves:
            target[to : to + count] = source[at : at + count] if holds else 0

    group.started.append(land)


def _commit(group: _Group, node: g.AsyncCommit) -> None:
    group.batches.append(group.started)
    group.started = []


def _wait(group: _Group, node: g.AsyncWait) -> None:
    while len(group.batches) > node.pending:
        for land in group.batches.pop(0):
            land()


def _matrix_load(group: _Group, node: g.MatrixLoad) -> None:
    """ldmatrix: lane 8 i + j of a warp points at row j of matrix i; lane l gets two elements of row l // 4."""
    memory, index = group.memory[node.pointer], _indices(group, node.index)
    for number, result in enumerate(node.results):
        pairs = np.empty((group.lanes, 2), memory.dtype)
        for warp in range(0, group.lanes, 32):
            rows = [memory[index[warp + 8 * number + j] :][:8] for j in range(8)]
            matrix = np.stack(rows).T if node.transposed else np.stack(rows)
            pairs[warp : warp + 32] = matrix.reshape(32, 2)
        group.values[result] = pairs


def _matrix_multiply(group: _Group, node: g.MatrixMultiply) -> None:
    """mma.m16n8k16.row.col: figures of the fragments of A, B and C in the PTX manual."""
    values, lane = group.values, np.arange(32)
    row, pair = lane // 4, 2 * (lane % 4)
    results = [np.empty(group.lanes, np.float32) for _ in node.results]
    for warp in range(0, group.lanes, 32):
        own = slice(warp, warp + 32)
        a, b, c = np.zeros((16, 16), np.float32), np.zeros((16, 8), np.float32), np.zeros((16, 8), np.float32)
        for half in range(2):
            for register in range(4):
                a[row + 8 * (register % 2), pair + 8 * (register // 2) + half] = values[node.a[register]][own, half]
            for register in range(2):
                b[pair + 8 * register + half, row] = values[node.b[register]][own, half]
        for register in range(4):
            c[row + 8 * (register // 2), pair + register % 2] = values[node.acc[register]][own]
        c = c + a @ b
        for register, result in enumerate(results):
            result[own] = c[row + 8 * (register // 2), pair + register % 2]
    values.update(zip(node.results, results, strict=True))


def _shared_matrix(group: _Group, node: g.SharedMatrix) -> None:
    group.values[node.result] = np.array([node.pointer, group.values[node.index][0], node.leading, node.stride])


def _operand(group: _Group, descriptor: Array, extent: int, *, transposed: bool) -> NDArray[np.float32]:
    """[extent, 16] of an operand: core matrices of 8 × 8, `leading` apart along k and `stride` along the other axis."""
    pointer, start, leading, stride = descriptor.astype(np.int64).tolist()
    memory, matrix = group.memory[pointer], np.empty((extent, 16), np.float32)
    for outer in range(extent // 8):
        for inner in range(2):
            at = start + (outer * stride + inner * leading) // 2
            core = memory[at : at + 64].reshape(8, 8)
            matrix[8 * outer : 8 * outer + 8, 8 * inner : 8 * inner + 8] = core.T if transposed else core
    return matrix


def _warpgroup_multiply(group: _Group, node: g.WarpgroupMultiply) -> None:
    """wgmma.m64n128k16: warp w of four holds rows 16 w .. 16 w + 15, eight columns in every four registers."""
    values, lane = group.values, np.arange(128)
    a = _operand(group, values[node.a], 64, transposed=node.transposed[0])
    b = _operand(group, values[node.b], 128, transposed=node.transposed[1])
    product = a @ b.T
    row, column = 16 * (lane // 32) + lane % 32 // 4, 2 * (lane % 4)
    for number, (acc, result) in enumerate(zip(node.acc, node.results, strict=True)):
        part = number % 4
        products = product[row + 8 * (part // 2), 8 * (number // 4) + column + part % 2]
        values[result] = values[acc].astype(np.float32) + products


def _nothing(group: _Group, node: Node) -> None:
    """Lanes run in step and registers are never late."""


_RULES: dict[type[Node], Callable[..., None]] = {
    k.Const: _const,
    k.Op: _op,
    k.Store: _store,
    k.Loop: _loop,
    g.Lane: _lane,
    g.GroupIndex: _group_index,
    g.SharedAlloc: _shared,
    g.Barrier: _nothing,
    g.AsyncCopy: _async_copy,
    g.AsyncCommit: _commit,
    g.AsyncWait: _wait,
    g.MatrixLoad: _matrix_load,
    g.MatrixMultiply: _matrix_multiply,
    g.SharedFence: _nothing,
    g.WarpgroupFence: _nothing,
    g.SharedMatrix: _shared_matrix,
    g.WarpgroupMultiply: _warpgroup_multiply,
    g.MatrixWait: _nothing,
}
