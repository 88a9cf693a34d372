"""`python -m tessera_runtime.serve`: the server where only the runtime is installed.

Takes: the words of the command line. Gives: an exit code, as docs/exit-codes.md lists them.
Invariant: the options are those of `tessera serve`.
"""

import argparse
import sys
from collections.abc import Sequence

from bundle_format.errors import TesseraError
from tessera_runtime.serve.settings import LOG_LEVELS, OPTIONS, Settings
from tessera_runtime.serve.workers import serve


def parser() -> argparse.ArgumentParser:
    """The options, with their defaults."""
    found = argparse.ArgumentParser(
        prog="python -m tessera_runtime.serve",
        description="Serve a bundle over HTTP by the Open Inference protocol (KServe v2).",
    )
    found.add_argument("bundle", help="the bundle to serve")
    for option in OPTIONS:
        text = option.help if option.default is None else f"{option.help} Default: {option.default}."
        choices = LOG_LEVELS if option.name == "log_level" else None
        found.add_argument(
            option.flag, dest=option.name, type=option.kind, default=option.default, help=text, choices=choices
        )
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Serve until a signal."""
    values = vars(parser().parse_args(words))
    try:
        return serve(Settings(**values))
    except TesseraError as error:
        sys.stderr.write(error.diagnostics() + "\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
