"""An entry of a model as an ONNX file, checked by onnx's checker and run by onnxruntime before it is called done.

Takes: a model.py, an ONNX file, a protobuf or a bundle; the name of an entry; dims.
Gives: a file and an `ExportResult`; raises a `TesseraError`, and then every file is as before.
Invariant: what is exported is the graph before any pass, so that the file says what the author wrote; of a bundle, the
graph behind the passes, for it holds no other.
"""

import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tessera_build.config import ConfigError, HostError, load_precision
from tessera_build.driver.restored import Restored, restored
from tessera_build.driver.source import Model, is_python
from tessera_build.frontends.onnx import read_onnx
from tessera_build.frontends.onnx.export import (
    OPSET,
    as_plain,
    check_onnx,
    exported,
    named_apart,
    with_plain_ports,
    write_onnx,
)
from tessera_build.frontends.python import read_python
from tessera_build.ir.graph.nodes import Module
from tessera_build.verify.exported import check_exported

_BUNDLE = ".tessera"


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was written. `error` is the largest that onnxruntime makes against the Graph reference; None: unchecked.

    `rounded` names the weights of which a bundle holds transforms alone: they are told back to 5e-7 of the largest
    that was transformed with them.
    """

    path: Path
    entry: str
    opset: int
    nodes: int
    bytes: int
    error: float | None
    rounded: tuple[str, ...] = ()


def export(
    model: Model,
    out: str | Path = "model.onnx",
    *,
    entry: str | None = None,
    dims: Mapping[str, int | tuple[int, int]] | None = None,
    verify: bool = True,
) -> ExportResult:
    """Write one entry of `model` to `out`; without `entry`, the only one that there is.

    `dims` fixes or bounds dynamic dims; those that stay are the file's own. Without `verify` onnxruntime is not asked.
    """
    source = _module(model, entry, dims)
    module, name = _entry(source.module, entry)
    made, path = exported(module, name), Path(out)
    with _drafts(path) as draft:
        write_onnx(made, draft)
        check_onnx(draft)
        error = None
        if verify:
            # By a file of its own, whose ports are of types that numpy has.
            with tempfile.TemporaryDirectory(prefix="tessera-") as folder:
                checked = Path(folder) / path.name
                write_onnx(replace(made, model=with_plain_ports(made.model)), checked)
                error = check_exported(module, name, checked, as_plain, load_precision("fp32"))
    return ExportResult(path, name, OPSET, len(made.model.graph.node), path.stat().st_size, error, source.rounded)


@contextmanager
def _drafts(path: Path) -> Generator[Path]:
    """A file to write to, and others beside it, which take their places once all is well: weights first, then who reads
    them. What is there may be what the model is read from, and stays until then.
    """
    with _written(path):
        folder = tempfile.TemporaryDirectory(prefix=".tessera-", dir=path.parent)
    with folder as name:
        yield Path(name) / path.name
        with _written(path):
            for draft in sorted(Path(name).iterdir(), key=lambda file: file.name == path.name):
                draft.replace(path.with_name(draft.name))


@contextmanager
def _written(path: Path) -> Generator[None]:
    """What the system refuses inside, as the error of a file that cannot be written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise HostError("OUTPUT_UNWRITABLE", f"the model cannot be written: {reason}", where=str(path)) from error


def _module(model: Model, entry: str | None, dims: Mapping[str, int | tuple[int, int]] | None) -> Restored:
    if is_python(model):
        return Restored(read_python(str(model), dims=dims, entries=(entry,) if entry else ()).module, ())
    if isinstance(model, str | Path) and Path(model).suffix == _BUNDLE:
        if dims:
            raise ConfigError("DIMS_NOT_OPEN", "the dims of a bundle were decided when it was built", where=str(model))
        return restored(model)
    return Restored(read_onnx(model, dims=dims), ())  # type: ignore[arg-type]


def _entry(module: Module, name: str | None) -> tuple[Module, str]:
    """The module with one entry alone, under names that an ONNX file can have."""
    names = list(module.entries)
    if name is None and len(names) > 1:
        raise ConfigError(
            "ENTRY_NOT_CHOSEN", "an ONNX file holds one entry", expected=f"--entry {' | '.join(names)}", found="none"
        )
    chosen = name or names[0]
    if chosen not in module.entries:
        raise ConfigError("ENTRY_UNKNOWN", f"the model has no entry {chosen!r}", expected=", ".join(names))
    return named_apart(replace(module, entries={chosen: module.entries[chosen]}), chosen), chosen
