"""Parameters in safetensors files, and back.

Takes modules, or parameters by name; gives files, and parameters with the numbers of files. Invariant: nothing is
assigned before everything fits: names that are missing, left over, of another shape or of another type are told at
once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from tessera import executor
from tessera.errors import LanguageError, Note
from tessera.graph.module import Module
from tessera.model.parameter import Parameter
from tessera.model.site import here
from tessera_build.ir.core.types import dtype_of
from tessera_build.ir.graph.nodes import Array

Holder = Module | Mapping[str, Parameter] | Iterable[Parameter]
_SHOWN = 8


def save(holder: Holder, path: str | Path) -> None:
    """Write the parameters of a module, or of a mapping or sequence of them, to a safetensors file."""
    arrays: dict[str, Array] = {}
    for name, parameter in _named(holder).items():
        array = parameter.array
        if array is None:
            raise LanguageError(
                "PARAMETER_WITHOUT_VALUE",
                f"the parameter {name} has no value to save",
                site=here(),
                found=str(parameter.spec),
                hint="give it an initialiser, or load it",
            )
        arrays[name] = array
    executor.needed("graph.save").write_weights(Path(path), arrays)


def load(holder: Holder, path: str | Path, *, strict: bool = True, convert: bool = False) -> None:
    """Give parameters the numbers of a safetensors file.

    Without `strict` names may be missing on either side; with `convert` another floating-point type is converted.
    """
    site, file = here(), Path(path)
    if not file.is_file():
        raise LanguageError("BAD_WEIGHTS", f"there is no file {file}", site=site)
    arrays, named = executor.needed("graph.load").read_weights(file), _named(holder)
    wrong = [
        Note("missing", _several(named.keys() - arrays.keys())),
        Note("left over", _several(arrays.keys() - named.keys())),
    ]
    wrong = [note for note in wrong if note.text and strict]
    for name in sorted(named.keys() & arrays.keys()):
        if not _fits(named[name], arrays[name], convert):
            found = f"{dtype_of(arrays[name].dtype)}{list(arrays[name].shape)}"
            wrong.append(Note("other", f"{name}: the file has {found}, the model {named[name].spec}", named[name].site))
    if wrong:
        raise LanguageError(
            "WEIGHTS_MISMATCH",
            f"{file.name} does not hold the weights of the model",
            site=site,
            hint="strict=False leaves names out, convert=True converts floats",
            notes=tuple(wrong[: 2 * _SHOWN]),
        )
    for name in named.keys() & arrays.keys():
        named[name].assign(arrays[name], site)


def _fits(parameter: Parameter, array: Array, convert: bool) -> bool:
    found = dtype_of(array.dtype)
    same = found == parameter.dtype or (convert and found.is_float and parameter.dtype.is_float)
    return same and array.shape == parameter.static_shape


def _several(names: Iterable[str]) -> str:
    """Names in order, the first ones where there are many."""
    ordered = sorted(names)
    rest = len(ordered) - _SHOWN
    return ", ".join(ordered[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _named(holder: Holder) -> dict[str, Parameter]:
    """Parameters by name: the path in the module, the key, or the parameter's own name."""
    if isinstance(holder, Module):
        return dict(holder.parameters())
    if isinstance(holder, Mapping):
        return dict(cast("Mapping[str, Parameter]", holder))
    return {parameter.name: parameter for parameter in holder}
