"""JSON with exactly one spelling for each value, and a parser that accepts nothing else.

Takes: JSON values (`Json`) or bytes.
Gives: canonical bytes (UTF-8, sorted keys, no spaces, no NaN), or the value of bytes that are canonical.
Invariant: `parse_canonical(canonical_bytes(v)) == v`, and any bytes that parse are what `canonical_bytes` prints.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn, TypeAlias, cast

from bundle_format.errors import BundleError

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

MAX_JSON_BYTES: Final = 64 << 20


def canonical_bytes(value: Json) -> bytes:
    """Print `value` in its one spelling. Floats are shortest round-trip decimals, as Python's `repr` gives them."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError(
            "JSON_UNPRINTABLE", "a value cannot be written as canonical JSON", found=str(error)
        ) from error


def parse_json(data: bytes | memoryview) -> Json:
    """Read JSON written by anyone. Duplicate keys, NaN and absurd sizes are a `BundleError`."""
    if len(data) > MAX_JSON_BYTES:
        raise BundleError(
            "JSON_OVERSIZE",
            "a JSON blob is too large",
            expected=f"at most {MAX_JSON_BYTES} bytes",
            found=f"{len(data)} bytes",
        )
    try:
        value: object = json.loads(
            str(data, "utf-8"), object_pairs_hook=_object_without_duplicates, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise BundleError("JSON_MALFORMED", "a JSON blob does not parse", found=str(error)[:200]) from error
    return cast(Json, value)


def parse_canonical(data: bytes | memoryview) -> Json:
    """Read JSON that must be in its one spelling; another spelling of the same value is a `BundleError`."""
    value = parse_json(data)
    if canonical_bytes(value) != data:
        raise BundleError("JSON_NOT_CANONICAL", "a JSON blob is not in canonical form")
    return value


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """What the decoder calls for each object."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return result


def _refuse_constant(name: str) -> NoReturn:
    """What the decoder calls for NaN and the infinities, which JSON does not have."""
    raise ValueError(f"{name} is not JSON")
