"""`tessera shapes`: the shape of every value of a model, with the line that makes it."""

from pathlib import Path

import click

from tessera_build.cli.console import json_option, print_json
from tessera_build.cli.options import FILE, read_dims
from tessera_build.driver.shapes import shapes


@click.command("shapes")
@click.argument("model", type=FILE)
@click.option("--entry", "entries", multiple=True, help="Names of entries. Default: all that the file offers.")
@click.option("--dims", "--dim", "dims", multiple=True, help="Fix (N=4) or bound (N=1:64) dynamic dims: N=1:64,S=128.")
@click.option("--all", "all_values", is_flag=True, help="Also what an expression computes on its way.")
@json_option
def shapes_command(
    model: Path, entries: tuple[str, ...], dims: tuple[str, ...], all_values: bool, as_json: bool
) -> None:
    """Print the shape of every value of MODEL, a model.py.

    \b
    Example:
      tessera shapes model.py --dims B=1:64
    """
    found = shapes(model, dims=read_dims(dims), entries=entries, all_values=all_values)
    if as_json:
        print_json(found)
        return
    for entry in dict.fromkeys(row.entry for row in found.rows):
        rows = [row for row in found.rows if row.entry == entry]
        types = [f"{row.dtype}[{', '.join(row.shape)}]" for row in rows]
        click.echo(f"{entry}:")
        place, width = max(len(row.where) for row in rows), max(len(text) for text in types)
        for row, text in zip(rows, types, strict=True):
            click.echo(f"  {row.where:<{place}}  {text:<{width}}  {row.expression}")
    if found.dims:
        click.echo("dims: " + ", ".join(f"{name} {limits}" for name, limits in found.dims.items()))
    for guard in found.guards:
        click.echo(f"guard: {guard}")
