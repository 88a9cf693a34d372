"""What is legal in Tile IR: one table from node class to rules.

Takes a function (and the names of the instructions that its bindings may use); raises `SpecError` with everything that
is wrong. Invariant: what passes here, the reference interpreter runs, except for indices that depend on data.
"""

from __future__ import annotations

from collections.abc import Collection

from tessera_build.ir.core import spec
from tessera_build.ir.core.dims import Range
from tessera_build.ir.core.node import Function
from tessera_build.ir.tile import nodes, spec_math, spec_memory

EVERY: tuple[spec.Rule, ...] = (spec_memory.binding_names, spec.dims_in_scope)
TILES: tuple[spec.Rule, ...] = (*EVERY, spec_memory.results_are_tiles)
RULES: spec.Rules = {
    nodes.Alloc: (*EVERY, spec_memory.alloc_static),
    nodes.View: (
        *EVERY,
        spec_memory.view_of_buffer,
        spec_memory.view_shape,
        spec_memory.view_axes,
        spec_memory.view_gather,
        spec_memory.view_bounds,
    ),
    nodes.Load: (*TILES, spec_memory.load_view, spec_memory.pad_fits),
    nodes.Store: (*EVERY, spec_memory.store_view),
    nodes.Copy: (*EVERY, spec_memory.copy_views, spec_memory.pad_fits),
    nodes.Wait: (*EVERY, spec_memory.wait_pending),
    nodes.For: (*TILES, spec_memory.for_step, spec_memory.for_carried),
    nodes.If: (*TILES, spec_memory.if_regions, spec_memory.if_relation),
    nodes.Let: (*TILES, spec_memory.let_value, spec_memory.let_results),
    nodes.Contract: (*TILES, spec_math.contract_spec, spec_math.contract_types, spec_math.contract_order),
    nodes.Map: (*TILES, spec_math.map_program, spec_math.map_shapes),
    nodes.Reduce: (*TILES, spec_math.reduce_program, spec_math.reduce_shapes, spec_math.reduce_order),
    nodes.Permute: (*TILES, spec_math.permute_shape),
    nodes.Iota: (*TILES, spec_math.iota_type),
}
LEVEL = spec.Level(
    RULES,
    (spec_memory.function_dims, spec_memory.arguments_are_buffers, spec.argument_symbols),
    spec_memory.loop_range,
    (nodes.If,),
)


def verify(function: Function, instructions: Collection[str] | None = None) -> None:
    """Raise `SpecError` unless the function is legal; `instructions` None accepts any instruction name."""
    names = {"any"} if instructions is None else set(instructions)
    dims: dict[str, Range] = {name: (0, None) for name in spec_memory.dims_of(function) if name.isidentifier()}
    spec.verify(function, LEVEL, dims, names)
