"""`tessera quickstart`: a real trained network, built, run and measured in one go."""

from pathlib import Path

import click

from tessera_build.cli.bench import print_bench
from tessera_build.cli.build import print_result
from tessera_build.cli.console import json_option, print_json, watching
from tessera_build.cli.options import FILE
from tessera_build.driver.quickstart import quickstart


@click.command("quickstart")
@click.option("-o", "--output", type=FILE, default="digits.tessera", show_default=True, help="Where the bundle goes.")
@click.option("--target", default="native", show_default=True, help="The target to build for.")
@json_option
def quickstart_command(output: Path, target: str, as_json: bool) -> None:
    """Build a network that reads handwritten digits, try it on images it has never seen, and time it.

    \b
    Example:
      tessera quickstart
    """
    with watching(quiet=as_json) as watch:
        found = quickstart(output, target, watch)
    if as_json:
        print_json(found)
        return
    print_result(found.result)
    click.echo(f"accuracy  {found.right} of {found.images} test images right ({found.accuracy:.1%})")
    for one in found.benches:
        print_bench(one)
    click.echo(f"\nThe bundle is {output.absolute()}. Next:")
    click.echo(f"  tessera inspect {output}")
    click.echo(f"  python -c \"import tessera_runtime as rt; print(rt.load('{output}').explain())\"")
