"""One run of an entry of a loaded bundle, on arrays that somebody gives.

Takes: a model, the name of an entry, arrays for its inputs and for the state that it begins with.
Gives: its outputs and the state that it leaves.
Invariant: what of a state is not given begins as zeros, as for a server's new stream.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import tessera_runtime
from tessera_build.config import ConfigError
from tessera_build.config.near import did_you_mean
from tessera_build.ir.graph.nodes import Array
from tessera_runtime.entry import EntryPoint


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outputs by their names; `state` by the names of the inputs that take it in the next run."""

    entry: str
    outputs: Mapping[str, Array]
    state: Mapping[str, Array]


def entry_of(model: tessera_runtime.Model, entry: str | None) -> EntryPoint:
    """The entry of this name, the main one for None; a `ConfigError` where there is none."""
    found = model.main if entry is None else model.entries.get(entry)
    if found is not None:
        return found
    names = tuple(model.entries)
    raise ConfigError(
        "ENTRY_UNKNOWN",
        f"the bundle has no entry {entry!r}",
        expected=", ".join(names),
        hint=did_you_mean(entry or "", names),
    )


def run_once(model: tessera_runtime.Model, entry: str | None, arrays: Mapping[str, Array]) -> Outcome:
    """Run the entry; `arrays` has its inputs, and as much of its state as should not begin as zeros."""
    point = entry_of(model, entry)
    carried = {spec.name for spec in point.states}
    feeds = {name: array for name, array in arrays.items() if name not in carried}
    if not carried:
        return Outcome(point.name, point.run(feeds), {})
    state = point.new_state({name: arrays[name] for name in sorted(carried & arrays.keys())})
    return Outcome(point.name, point.run(feeds, state=state), state.arrays)
