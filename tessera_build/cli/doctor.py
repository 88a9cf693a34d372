"""`tessera doctor`: everything that stands between a model and its bundle, before anything is built."""

import sys
from pathlib import Path

import click

from tessera_build.cli.console import human_bytes, json_option, print_json
from tessera_build.cli.options import FILE, read_dims
from tessera_build.driver.doctor import Diagnosis, Estimate, Gap, diagnose
from tessera_build.frontends.onnx import ModelError, UnsupportedError

_DEAREST = 10


@click.command("doctor")
@click.argument("model", type=FILE)
@click.option("--target", default="native", show_default=True, help="The target that costs are estimated for.")
@click.option("--dims", "--dim", "dims", multiple=True, help="Fix (N=4) or bound (N=1:64) dynamic dims: N=1:64,S=128.")
@json_option
def doctor_command(model: Path, target: str, dims: tuple[str, ...], as_json: bool) -> None:
    """Say what MODEL holds, every reason why it would not build, and what it would cost: nothing is compiled.

    Leaves with 0 when the model builds, 4 when something is not supported, 3 when the model is broken.

    \b
    Example:
      tessera doctor model.onnx
      tessera doctor model.onnx --dims batch=8 --json
    """
    found = diagnose(model, target=target, dims=read_dims(dims))
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found.gaps:
        broken = any(gap.broken for gap in found.gaps)
        sys.exit(ModelError.exit_code if broken else UnsupportedError.exit_code)


def _print(found: Diagnosis) -> None:
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in found.opsets.items())
    click.echo(f"{found.model}: {sum(found.operators.values())} nodes, {len(found.operators)} operators, {opsets}")
    for title, lines in (("input", found.inputs), ("output", found.outputs)):
        for line in lines:
            click.echo(f"  {title:<7} {line}")
    for name, limits in found.dims.items():
        click.echo(f"  dim     {name}: {limits}")
    for line in found.assumptions:
        click.echo(f"  assumes {line}")
    for line in found.warnings:
        click.echo(f"  warning {line}")
    click.echo("  " + ", ".join(f"{name} {count}" for name, count in found.operators.items()))
    if found.estimate is not None:
        _print_estimate(found.estimate, partly=bool(found.gaps))
    if not found.gaps:
        click.echo("nothing stands in the way: `tessera build` will take it")
        return
    click.echo(f"{len(found.gaps)} gap{'s' if len(found.gaps) > 1 else ''}:")
    for gap in found.gaps:
        _print_gap(gap)


def _print_gap(gap: Gap) -> None:
    click.echo(f"  {gap.node or 'the model'}: {gap.message}" + (f" (found {gap.found})" if gap.found else ""))
    if gap.rewrite:
        click.echo(f"    help: {gap.rewrite}")


def _print_estimate(found: Estimate, partly: bool) -> None:
    sizes = ", ".join(f"{name}={size}" for name, size in found.sizes.items())
    click.echo(
        f"estimate for {found.target}{f' at {sizes}' if sizes else ''}" + (" without the gaps" if partly else "")
    )
    click.echo(
        f"  weights {human_bytes(found.weight_bytes)}, workspace {human_bytes(found.arena_bytes)}, "
        f"{found.operations / 1e9:.3g} G operations, {human_bytes(found.traffic_bytes)} read and written, "
        f"{found.launches} launches"
    )
    if found.largest is not None and found.largest.workspace > found.arena_bytes:
        click.echo(f"  workspace at the largest sizes of the dims: {human_bytes(found.largest.workspace)}")
    total = sum(cost.cycles for cost in found.costs) or 1.0
    for cost in found.costs[:_DEAREST]:
        click.echo(f"  {cost.cycles / total:6.1%}  {cost.name} ({cost.kind}, {cost.operations / 1e6:.3g} M operations)")
    if len(found.costs) > _DEAREST:
        rest = sum(cost.cycles for cost in found.costs[_DEAREST:])
        click.echo(f"  {rest / total:6.1%}  {len(found.costs) - _DEAREST} more")
