"""Weights in safetensors files: names, element types, shapes and raw bytes.

Takes a path; gives read-only arrays mapped from the file, or writes arrays to it. Invariant: nothing outside of the
file is read whatever its header says, a header that does not fit the file is refused, and equal arrays are equal bytes.

The format: eight bytes with the header's length, little-endian; a JSON object that maps names to `dtype`, `shape` and
`data_offsets` into the bytes behind it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np

from tessera.errors import LanguageError
from tessera_build.ir.core.types import DTYPES, DType
from tessera_build.ir.graph.nodes import Array

_LARGEST_HEADER = 100_000_000
_ALIGNMENT = 8
_TYPES: Mapping[str, str] = {
    "F64": "f64",
    "F32": "f32",
    "F16": "f16",
    "BF16": "bf16",
    "F8_E4M3": "f8e4m3",
    "F8_E5M2": "f8e5m2",
    "I64": "i64",
    "I32": "i32",
    "I16": "i16",
    "I8": "i8",
    "U64": "u64",
    "U32": "u32",
    "U16": "u16",
    "U8": "u8",
    "BOOL": "bool",
}


def read_safetensors(path: Path) -> dict[str, Array]:
    """All tensors by name; raises `LanguageError` for a file that is none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, _LARGEST_HEADER):
            raise _broken(path, "its header is longer than the file")
        try:
            header: object = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise _broken(path, f"its header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise _broken(path, "its header is no mapping")
    rows = cast("dict[str, object]", header)
    data = np.memmap(path, np.uint8, "r", offset=8 + length) if size > 8 + length else np.zeros(0, np.uint8)
    data.flags.writeable = False
    return {name: _tensor(path, name, row, data) for name, row in rows.items() if name != "__metadata__"}


def write_safetensors(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write tensors by name, in the order of their names; the file is there when it is whole, or not at all.

    Raises `LanguageError` for an element type that the format does not have, and where the file cannot be written.
    """
    header: dict[str, object] = {}
    offset = 0
    for name, array in sorted(arrays.items()):
        size = array.size * array.dtype.itemsize
        header[name] = {
            "dtype": _word(path, name, array),
            "shape": list(array.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    draft = path.with_name(path.name + ".part")
    try:
        with draft.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for _, array in sorted(arrays.items()):
                file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise LanguageError("BAD_WEIGHTS", f"{path} cannot be written: {reason}", site=None) from error


def _word(path: Path, name: str, array: Array) -> str:
    """The format's word for an element type."""
    for word, dtype in _TYPES.items():
        if DTYPES[dtype].numpy == array.dtype:
            return word
    raise LanguageError(
        "BAD_WEIGHTS",
        f"{path.name} cannot hold {name}: the format has no such element type",
        site=None,
        expected=", ".join(_TYPES.values()),
        found=str(array.dtype),
    )


def _tensor(path: Path, name: str, row: object, data: Array) -> Array:
    """One tensor as a view of the file's bytes."""
    if not isinstance(row, dict):
        raise _broken(path, f"{name} is no record")
    record = cast("dict[str, object]", row)
    dtype = _dtype(path, name, record.get("dtype"))
    shape, offsets = _integers(record.get("shape")), _integers(record.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2:
        raise _broken(path, f"{name} has no shape or no place")
    begin, end = offsets
    if end - begin != math.prod(shape) * dtype.numpy.itemsize or not begin <= end <= data.size:
        raise _broken(path, f"{name} does not lie in the file")
    part = data[begin:end]
    if begin % dtype.numpy.itemsize:
        part = part.copy()
        part.flags.writeable = False
    return cast(Array, part.view(dtype.numpy).reshape(shape))


def _dtype(path: Path, name: str, word: object) -> DType:
    if not isinstance(word, str) or word not in _TYPES:
        raise _broken(path, f"{name} has an element type that Tessera does not read: {word!r}")
    return DTYPES[_TYPES[word]]


def _integers(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    items = cast("list[object]", value)
    found = tuple(item for item in items if isinstance(item, int) and not isinstance(item, bool) and item >= 0)
    return found if len(found) == len(items) else None


def _broken(path: Path, reason: str) -> LanguageError:
    return LanguageError("BAD_WEIGHTS", f"{path.name} is no safetensors file: {reason}", site=None)
