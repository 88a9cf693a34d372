"""`tessera serve`: a bundle behind HTTP, by the Open Inference protocol."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from tessera_build.cli.options import FILE
from tessera_runtime.serve.settings import LOG_LEVELS, OPTIONS


def _with_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options that the runtime's own command has, one for one."""
    for option in reversed(OPTIONS):
        kind = click.Choice(LOG_LEVELS) if option.name == "log_level" else option.kind
        shown = option.default is not None
        add = click.option(
            option.flag, option.name, type=kind, default=option.default, show_default=shown, help=option.help
        )
        function = add(function)
    return function


@click.command("serve")
@click.argument("bundle", type=FILE)
@_with_options
def serve_command(bundle: Path, **values: str | int | float) -> None:
    """Serve BUNDLE over HTTP (KServe v2, the Open Inference protocol) until SIGTERM.

    \b
    Example:
      tessera serve model.tessera --port 8000 --max-batch 32 --batch-delay 0.002
    """
    # A process of the runtime alone takes the place of this one, which has the compiler in its memory.
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "tessera_runtime.serve", *_words(values), "--", str(bundle)])


def _words(values: Mapping[str, object]) -> list[str]:
    """The options as the runtime's own command takes them."""
    given = ((option.flag, values[option.name]) for option in OPTIONS)
    return [f"{flag}={value}" for flag, value in given if value is not None]
