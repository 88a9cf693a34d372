"""Attributes and types as text.

Takes an `Attr` or a `Type`; gives its one spelling in MLIR's syntax. Invariant: the parser reads it back exactly,
floats included; symbolic extents, which MLIR's types cannot hold, print as `?` in types and as `#tessera.dim<"...">`
in attributes.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence

from tessera_build.ir.core.attributes import Attr
from tessera_build.ir.core.dims import Dim
from tessera_build.ir.core.types import DType, Type

_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_$.]*")
_I64 = range(-(1 << 63), 1 << 63)
_U64 = range(1 << 64)


def print_attribute(value: Attr) -> str:
    """One attribute; raises `ValueError` for an integer beyond 64 bits."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return _print_int(value)
        case float():
            return _print_float(value)
        case str():
            return print_string(value)
        case DType():
            return value.mlir
        case Dim():
            return f'#tessera.dim<"{value}">'
        case tuple():
            return f"[{', '.join(print_attribute(item) for item in value)}]"
        case _:
            return print_dictionary(value)


def print_dictionary(values: Mapping[str, Attr]) -> str:
    """`{a = 1, b = [true]}`, in the order of the mapping."""
    return "{" + ", ".join(f"{_print_key(key)} = {print_attribute(item)}" for key, item in values.items()) + "}"


def _print_key(key: str) -> str:
    return key if _BARE.fullmatch(key) else print_string(key)


def _print_int(value: int) -> str:
    if value in _I64:
        return str(value)
    if value in _U64:
        return f"{value} : ui64"
    raise ValueError(f"{value} does not fit into 64 bits")


def _print_float(value: float) -> str:
    if not math.isfinite(value):
        (bits,) = struct.unpack(">Q", struct.pack(">d", value))
        return f"0x{bits:016X} : f64"
    text = repr(value)
    # MLIR wants a point before the exponent.
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def print_string(value: str) -> str:
    """A quoted string; everything but printable ASCII as hexadecimal bytes of its UTF-8 form."""
    if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
        return f'"{value}"'
    plain = (chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:02X}" for b in value.encode())
    return f'"{"".join(plain)}"'


def print_type(type_: Type) -> str:
    """A value's type; symbolic extents print as `?`."""
    if type_.container == "scalar":
        return type_.dtype.mlir
    extents = [str(e) if isinstance(e, int) else "?" for e in type_.shape]
    return f"{type_.container}<{'x'.join([*extents, type_.dtype.mlir])}>"


def print_types(types: Sequence[Type]) -> str:
    """`(f32, i1)`."""
    return f"({', '.join(print_type(t) for t in types)})"


def is_symbolic(type_: Type) -> bool:
    """True when the type's text does not say its whole shape."""
    return any(isinstance(e, Dim) for e in type_.shape)
