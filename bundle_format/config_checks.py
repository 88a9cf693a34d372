"""What must hold between the fields of a config.

Takes: a `Config` whose fields have the right types.
Gives: nothing, or a `BundleError` whose `where` is the path below the config.
Invariant: after the check, every name that is looked up is unique and everything that is referred to exists.
"""

from collections.abc import Iterable

from bundle_format.dims import DimExpression
from bundle_format.errors import BundleError
from bundle_format.fields import add_step
from bundle_format.schema import Config, Entry


def check_consistency(config: Config) -> None:
    """Names are unique where they are looked up, and everything that is referred to exists."""
    _check_unique((entry.name for entry in config.entries), ".entries")
    _check_unique((weight.name for weight in config.weights), ".weights")
    if not config.entries:
        raise BundleError("CONFIG_INCONSISTENT", "a variant has no entry", where=".entries")
    for index, entry in enumerate(config.entries):
        try:
            _check_entry(entry)
        except BundleError as error:
            raise add_step(error, f".entries[{index}]") from None
    declared = frozenset(name for entry in config.entries for name in _names(entry))
    for index, guard in enumerate(config.guards):
        _check_declared(guard.left, declared, f".guards[{index}].left")
        _check_declared(guard.right, declared, f".guards[{index}].right")


def _check_entry(entry: Entry) -> None:
    _check_unique((value.name for value in entry.inputs), ".inputs")
    _check_unique((value.name for value in entry.outputs), ".outputs")
    _check_unique(_names(entry), ".dims")
    if not entry.outputs and not entry.results:
        raise BundleError("CONFIG_INCONSISTENT", "an entry gives nothing", where=".outputs", found=entry.name)
    for index, dim in enumerate(entry.dims):
        if dim.max is not None and dim.max < dim.min:
            raise BundleError("CONFIG_INCONSISTENT", "a dim's max is below its min", where=f".dims[{index}]")
    declared = frozenset(dim.name for dim in entry.dims)
    everything = frozenset(_names(entry))
    for index, size in enumerate(entry.sizes):
        if isinstance(size.max, DimExpression):
            _check_declared(size.max, everything, f".sizes[{index}].max")
    for group, values, known in ((".inputs", entry.inputs, declared), (".outputs", entry.outputs, everything)):
        for index, value in enumerate(values):
            for extent in value.shape:
                if isinstance(extent, DimExpression):
                    _check_declared(extent, known, f"{group}[{index}].shape")
    if isinstance(entry.workspace, DimExpression):
        _check_declared(entry.workspace, everything, ".workspace")
    _check_states(entry)
    _check_results(entry)


def _names(entry: Entry) -> tuple[str, ...]:
    """Every symbol of an entry: dims, then sizes from data."""
    return (*(dim.name for dim in entry.dims), *(size.name for size in entry.sizes))


def _check_states(entry: Entry) -> None:
    inputs = {value.name: value for value in entry.inputs}
    outputs = {value.name: value for value in entry.outputs}
    _check_unique((state.input for state in entry.states), ".states")
    _check_unique((state.output for state in entry.states), ".states")
    for index, state in enumerate(entry.states):
        source, sink = outputs.get(state.output), inputs.get(state.input)
        if source is None or sink is None or source.dtype != sink.dtype or len(source.shape) != len(sink.shape):
            raise BundleError(
                "CONFIG_INCONSISTENT",
                "a state does not join an output to an input of the same dtype and rank",
                where=f".states[{index}]",
                found=f"{state.output} -> {state.input}",
            )
        if state.in_place and source.shape != sink.shape:
            raise BundleError(
                "CONFIG_INCONSISTENT",
                "a state that is written in place changes its shape",
                where=f".states[{index}].in_place",
                found=f"{state.output} -> {state.input}",
            )


def _check_results(entry: Entry) -> None:
    """Results use every output once; all but sequences and nothing have one, and labels where their kind has them."""
    if not entry.results:
        return
    _check_unique((result.name for result in entry.results), ".results")
    used = [name for result in entry.results for name in result.outputs]
    if sorted(used) != sorted(value.name for value in entry.outputs):
        raise BundleError("CONFIG_INCONSISTENT", "the results do not use every output once", where=".results")
    ranks = {value.name: len(value.shape) for value in entry.outputs}
    for index, result in enumerate(entry.results):
        labelled = result.kind in ("integer_maps", "word_maps", "words")
        wanted = {"sequence": len(result.outputs), "nothing": 0}.get(result.kind, 1)
        rows = result.kind in ("integer_maps", "word_maps")
        if len(result.outputs) != wanted or (rows and ranks[result.outputs[0]] != 2) or labelled != bool(result.labels):
            raise BundleError(
                "CONFIG_INCONSISTENT",
                f"a result of the kind {result.kind!r} does not fit its outputs and labels",
                where=f".results[{index}]",
            )


def _check_unique(names: Iterable[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BundleError("CONFIG_INCONSISTENT", f"the name {name!r} occurs twice", where=where)
        seen.add(name)


def _check_declared(expression: DimExpression, declared: frozenset[str], where: str) -> None:
    missing = sorted(expression.symbols - declared)
    if missing:
        raise BundleError("CONFIG_INCONSISTENT", f"the symbol {missing[0]!r} is not declared in dims", where=where)
