"""The command `tessera`: a group of subcommands, and what happens to errors.

Takes: the arguments of the process.
Gives: an exit code, as docs/exit-codes.md lists them.
Invariant: an error that Tessera raises on purpose is printed by its own `diagnostics()`, any other with its traceback
and exit code 1, so that it can be reported.
"""

import sys
import traceback
from typing import Final, final

import click

from bundle_format.errors import TesseraError
from tessera_build import __version__
from tessera_build.cli.bench import bench_command
from tessera_build.cli.build import build_command
from tessera_build.cli.doctor import doctor_command
from tessera_build.cli.export import export_command
from tessera_build.cli.inspect import inspect_command
from tessera_build.cli.profile import profile_command
from tessera_build.cli.quickstart import quickstart_command
from tessera_build.cli.run import run_command
from tessera_build.cli.serve import serve_command
from tessera_build.cli.shapes import shapes_command
from tessera_build.cli.targets import targets_command
from tessera_build.cli.verify import verify_command

# What shells give for a command that SIGINT ended.
INTERRUPTED: Final = 130


@final
class _Group(click.Group):
    """A group that turns exceptions into exit codes."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except TesseraError as error:
            if error.code == "INTERNAL":
                traceback.print_exception(error.__cause__)
            click.echo(error.diagnostics(), err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted: nothing half-written was left behind", err=True)
            sys.exit(INTERRUPTED)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception:
            traceback.print_exc()
            click.echo(
                "error[INTERNAL]: Tessera failed in a way that nobody expected; please report this text", err=True
            )
            sys.exit(TesseraError.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tessera")
def main() -> None:
    """Build deep-learning models ahead of time: one command, one proved bundle, machine code for many targets.

    \b
    Example:
      tessera build model.onnx --target x86-64-v4,x86-64-v3 -o model.tessera
      tessera run model.tessera --input x=in.npy --output out.npz
    """


for _command in (
    build_command,
    doctor_command,
    export_command,
    run_command,
    serve_command,
    bench_command,
    profile_command,
    verify_command,
    inspect_command,
    shapes_command,
    targets_command,
    quickstart_command,
):
    main.add_command(_command)
