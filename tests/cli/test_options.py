"""How words on the command line become names and sizes."""

from __future__ import annotations

import click
import pytest

from tessera_build.cli.options import read_bytes, read_dims, read_sizes
from tests.cli.conftest import Tessera


@pytest.mark.unit
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["batch=1:64,seq=128"], {"batch": (1, 64), "seq": 128}),
        (["N=1..64", "S=2"], {"N": (1, 64), "S": 2}),
        (["N=4, M=5"], {"N": 4, "M": 5}),
        (["floor(H/2)=7"], {"floor(H/2)": 7}),
    ],
)
def test_dims_when_written_in_any_form_then_are_read(words: list[str], wanted: dict[str, object]) -> None:
    assert read_dims(words) == wanted


@pytest.mark.errors
@pytest.mark.parametrize("word", ["batch", "batch=", "=4", "batch=4:", "batch=a:b", "batch=4:8:9", "batch=-1"])
def test_dims_when_ill_formed_then_are_a_usage_error_that_shows_the_form(word: str) -> None:
    with pytest.raises(click.BadParameter, match="NAME=LOW:HIGH"):
        read_dims([word])


@pytest.mark.errors
@pytest.mark.parametrize("words", [["B=1:64,B=2"], ["B=1", "S=3,B=1"], ["B=2", " B=2"]])
def test_dims_when_one_is_given_twice_then_are_a_usage_error(words: list[str]) -> None:
    with pytest.raises(click.BadParameter, match="dim B is given twice"):
        read_dims(words)
    with pytest.raises(click.BadParameter, match="dim B is given twice"):
        read_sizes(words)


@pytest.mark.errors
def test_sizes_when_a_range_is_given_then_are_a_usage_error() -> None:
    with pytest.raises(click.BadParameter, match="one size"):
        read_sizes(["N=1:2"])


@pytest.mark.unit
@pytest.mark.parametrize(
    ("word", "wanted"), [("16GiB", 16 << 30), ("500MB", 500_000_000), ("1.5 GiB", 3 << 29), ("4096", 4096)]
)
def test_bytes_when_written_with_a_unit_then_are_read(word: str, wanted: int) -> None:
    assert read_bytes(click.Context(click.Command("x")), click.Option(["--x"]), word) == wanted


@pytest.mark.errors
@pytest.mark.parametrize("command", ["bench", "profile"])
@pytest.mark.parametrize("word", ["nan", "inf", "0.05"])
def test_seconds_when_no_finite_number_within_limits_then_are_a_usage_error(
    tessera: Tessera, command: str, word: str
) -> None:
    done = tessera(command, "model.tessera", "--seconds", word)
    assert done.exit_code == 2
    assert "--seconds" in done.stderr
