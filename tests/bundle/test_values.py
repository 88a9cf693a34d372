"""Digests, canonical JSON and dimension expressions: the values that everything else is made of."""

import hashlib
import math
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle_format.canonical import MAX_JSON_BYTES, Json, canonical_bytes, parse_canonical, parse_json
from bundle_format.digest import Digest
from bundle_format.dims import MAX_TEXT, parse_dim
from bundle_format.errors import BundleError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def refusal(code: str) -> "pytest.RaisesExc[BundleError]":
    """Expect a `BundleError` with this code."""
    return pytest.RaisesExc(BundleError, check=lambda error: error.code == code)


@pytest.mark.unit
def test_digest_when_printed_then_parses_to_itself() -> None:
    digest = Digest.of(b"abc")
    assert str(digest) == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert Digest.parse(str(digest)) == digest


@pytest.mark.errors
@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "0" * 63,
        "sha256:" + "A" * 64,
        "sha512:" + "0" * 64,
        "sha256:../" + "0" * 61,
        "0" * 64,
    ],
)
def test_digest_when_malformed_then_is_refused(text: str) -> None:
    with refusal("DIGEST_MALFORMED"):
        Digest.parse(text)


@pytest.mark.unit
@given(JSON)
def test_json_when_printed_then_parses_to_itself(value: Json) -> None:
    data = canonical_bytes(value)
    again = parse_canonical(data)
    assert again == value
    assert canonical_bytes(again) == data


@pytest.mark.unit
def test_json_when_keys_are_in_another_order_then_bytes_are_equal() -> None:
    assert canonical_bytes({"b": 1, "a": [1.5, "ü"]}) == canonical_bytes({"a": [1.5, "ü"], "b": 1})
    assert canonical_bytes({"b": 1, "a": [1.5, "ü"]}) == '{"a":[1.5,"ü"],"b":1}'.encode()


@pytest.mark.errors
@pytest.mark.parametrize("data", [b'{"a": 1}', b'{"b":1,"a":1}', b"1.50", b'"\\u00fc"', b"1e2", b"[1,2] "])
def test_json_when_spelt_differently_then_is_not_canonical(data: bytes) -> None:
    assert parse_json(data) is not None
    with refusal("JSON_NOT_CANONICAL"):
        parse_canonical(data)


@pytest.mark.errors
@pytest.mark.parametrize(
    "data",
    [b"", b"{", b'{"a":1,"a":2}', b"NaN", b"[Infinity]", b"\xff", b"[" * 100_000, b"9" * 5000, b'"\xed\xa0\x80"'],
)
def test_json_when_damaged_or_hostile_then_is_refused(data: bytes) -> None:
    with refusal("JSON_MALFORMED"):
        parse_json(data)


@pytest.mark.errors
def test_json_when_too_large_then_is_refused_unread() -> None:
    with refusal("JSON_OVERSIZE"):
        parse_json(bytes(MAX_JSON_BYTES + 1))


@pytest.mark.errors
@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800"])
def test_json_when_value_has_no_spelling_then_is_refused(value: Json) -> None:
    with refusal("JSON_UNPRINTABLE"):
        canonical_bytes({"a": value})


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7),
        ("S", 5),
        ("2*S+1", 11),
        ("-S + N*N", 4),
        ("floordiv(N, 2) * (S - 1)", 4),
        ("mod(S, N)", 2),
        ("min(S, max(N, 4))", 4),
        ("floordiv(-N, 2)", -2),
        ("N-S-1", -3),
    ],
)
def test_dim_when_evaluated_then_follows_arithmetic(text: str, expected: int) -> None:
    assert parse_dim(text).evaluate({"S": 5, "N": 3}) == expected


@pytest.mark.unit
def test_dim_when_asked_for_symbols_then_names_each_once() -> None:
    assert parse_dim("S*S+floordiv(T, 2)").symbols == {"S", "T"}
    assert parse_dim("S").plain_symbol == "S"
    assert parse_dim("S+0").plain_symbol is None


@pytest.mark.errors
@pytest.mark.parametrize(
    "text",
    [
        "",
        "2*",
        "S T",
        "f(S, 1)",
        "min(S)",
        "(S",
        "S)",
        "1//2",
        "S.x",
        "__import__('os')",
        "2S",
        "(" * 200 + "S",
        "S" * 600,
    ],
)
def test_dim_when_outside_the_grammar_then_is_refused(text: str) -> None:
    with refusal("DIM_MALFORMED"):
        parse_dim(text)


@pytest.mark.errors
def test_dim_when_dividing_by_zero_then_is_refused() -> None:
    with refusal("DIM_DIVISION"):
        parse_dim("floordiv(1, N)").evaluate({"N": 0})


@pytest.mark.unit
@given(st.text(alphabet="SN12+-*(), minmodfloordiv", max_size=MAX_TEXT + 1))
def test_dim_when_text_is_arbitrary_then_parses_or_is_refused(text: str) -> None:
    try:
        expression = parse_dim(text)
    except BundleError:
        return
    assert expression.symbols or isinstance(expression.evaluate({}), int)


@pytest.mark.unit
def test_error_when_it_crosses_a_process_then_keeps_every_fact() -> None:
    error = BundleError("CODE", "message", where="here", expected="this", found="that", hint="do so")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is BundleError
    assert again.diagnostics() == error.diagnostics()
    assert str(again).splitlines() == [
        "error[CODE]: message",
        "  at:       here",
        "  expected: this",
        "  found:    that",
        "  help:     do so",
    ]


@pytest.mark.parametrize("size", [0, 1, 1 << 22, (1 << 22) + 1])
def test_digest_when_data_is_small_or_large_then_it_is_sha256(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    assert Digest.of(data[:size]).hex == hashlib.sha256(data[:size]).hexdigest()
    assert Digest.of(memoryview(data)[:size]).hex == hashlib.sha256(data[:size]).hexdigest()


def test_runtime_when_imported_then_openssl_is_not() -> None:
    program = "import sys, tessera_runtime; print('_hashlib' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
