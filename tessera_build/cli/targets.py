"""`tessera targets`: the machines that code can be made for."""

import click

from tessera_build.cli.console import json_option, print_json
from tessera_build.driver.targets import targets


@click.command("targets")
@json_option
def targets_command(as_json: bool) -> None:
    """List the targets that come with Tessera, and which of them this machine can run.

    \b
    Example:
      tessera targets
    """
    found = targets()
    if as_json:
        print_json(found)
        return
    for target in found:
        runs = "runs here" if target.runs_here else "does not run here"
        click.echo(f"{target.name:<12} {target.arch}, {target.vector_bits}-bit vectors, {runs}")
        click.echo(f"{'':<12} needs {' '.join(target.features)}")
    click.echo("A YAML file of your own is a target too: configs/targets shows the form.")
