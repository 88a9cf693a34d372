"""An entry of a loaded bundle with random inputs, ready to be run again and again by those who measure it.

Takes: a loaded model, the graph of its variant, the name of an entry, sizes of its dims.
Gives: `Calls`: runs to make one after the other.
Invariant: a run begins in the same state as every other one, and making that state is no part of it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import tessera_runtime
from tessera_build.config import ConfigError
from tessera_build.driver.once import entry_of
from tessera_build.driver.opened import requested_sizes
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.reference import shape_at
from tessera_build.verify.check import FIRST_SEED
from tessera_build.verify.inputs import Sizes, accepted_inputs
from tessera_runtime.cpu.available import shortage
from tessera_runtime.entry import EntryPoint

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Calls:
    """One entry at `sizes`; `feeds` are its inputs, `initial` the state that each run begins with."""

    entry: EntryPoint
    sizes: Sizes
    feeds: Mapping[str, Array]
    initial: Mapping[str, Array]

    def runs(self, count: int) -> list[Run]:
        """So many runs; a state serves one of them only, for what a run appends to a cache is there in the next."""
        run = partial(self.entry.run, self.feeds)
        if not self.initial:
            return [run] * count
        return [partial(run, state=self.entry.new_state(self.initial)) for _ in range(count)]


def calls_of(
    model: tessera_runtime.Model, module: Module, entry: str | None, requested: Mapping[str, int] | None
) -> Calls:
    """Inputs that the entry accepts (None: the main one), at the sizes asked for and the smallest otherwise.

    A `ConfigError` where there is no such entry or dim, where sizes do not fit, or where inputs do not fit memory.
    """
    point = entry_of(model, entry)
    names = {dim.name for dim in point.dims}
    dims = {name: range_ for name, range_ in module.dims.items() if name in names}
    module = replace(module, entries={point.name: module.entries[point.name]}, dims=dims)
    sizes = requested_sizes(module, requested or {})
    _check_memory(module, point.name, sizes)
    carried = {spec.name for spec in point.states}

    def call(inputs: Mapping[str, Array]) -> Calls:
        feeds = {name: array for name, array in inputs.items() if name not in carried}
        return Calls(point, sizes, feeds, {name: inputs[name] for name in inputs.keys() & carried})

    return call(accepted_inputs(module, point.name, sizes, FIRST_SEED, lambda inputs: call(inputs).runs(1)[0]()))


def _check_memory(module: Module, entry: str, sizes: Sizes) -> None:
    function = module.entries[entry]
    types = [function.types[value] for value in function.args]
    needed = sum(math.prod(shape_at(type_, sizes)) * type_.dtype.bytes for type_ in types)
    there = shortage(needed)
    if there is not None:
        raise ConfigError(
            "SIZES_TOO_LARGE",
            "there is not enough memory for inputs of these sizes",
            expected=f"at most {there} bytes, which this process can still take",
            found=f"{needed} bytes for {', '.join(f'{name}={size}' for name, size in sizes.items())}",
        )
