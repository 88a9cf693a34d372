"""Progress on a terminal and elsewhere, and how values are written."""

import io
import sys
from pathlib import Path

import pytest

from bundle_format import Digest
from tessera_build.cli.console import human_bytes, human_seconds, plain, watching
from tessera_build.driver.result import Event, StageTime

pytestmark = pytest.mark.cli
EVENTS = [Event("load"), Event("compile"), *(Event("compile", n, 20, f"kernel_{n}") for n in range(1, 21))]


class Terminal(io.StringIO):
    """Standard error that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_watching_when_stages_go_by_then_names_each(monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]) -> None:
    shown = stream()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm-256color")
    with watching() as watch:
        for event in EVENTS:
            watch(event)
    text = shown.getvalue()
    assert "compile" in text
    assert ("20/20" in text) or stream is Terminal  # a bar is drawn ten times a second, a line when it is due
    assert ("\x1b[" in text) == (stream is Terminal)


def test_watching_when_quiet_then_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(quiet=True) as watch:
        for event in EVENTS:
            watch(event)
    assert capsys.readouterr() == ("", "")


def test_plain_when_given_records_then_gives_what_json_has() -> None:
    digest = Digest.of(b"")
    value = {"times": (StageTime("load", 0.5),), "path": Path("a/b"), "digest": digest, "none": None}
    assert plain(value) == {
        "times": [{"stage": "load", "seconds": 0.5}],
        "path": "a/b",
        "digest": str(digest),
        "none": None,
    }


def test_human_units_when_printed_then_fit_the_size() -> None:
    assert [human_bytes(n) for n in (0, 1023, 1536, 5 << 20, 3 << 30)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 MiB",
        "3.0 GiB",
    ]
    assert [human_seconds(s) for s in (2.5, 0.0042, 0.0000071, 0.0)] == ["2.5 s", "4.2 ms", "7.1 µs", "0 µs"]
