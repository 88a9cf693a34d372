"""`tessera bench`: how long a bundle takes, alone or beside onnxruntime."""

from pathlib import Path

import click

from tessera_build.cli.console import human_seconds, json_option, print_json
from tessera_build.cli.options import FILE, entry_option, read_sizes, seconds_option, threads_option
from tessera_build.driver.bench import Bench, BenchRequest, bench


@click.command("bench")
@click.argument("bundle", type=FILE)
@click.option("--against", type=click.Choice(["onnxruntime"]), help="Run this peer in turns with the bundle.")
@click.option("--model", type=FILE, help="The ONNX file for the peer. Default: the one beside the bundle that fits.")
@entry_option
@click.option("--dims", "--dim", "dims", multiple=True, help="Sizes of dynamic dims: N=8,S=128. Default: 1 if it may.")
@seconds_option
@threads_option
@json_option
def bench_command(
    bundle: Path,
    against: str | None,
    model: Path | None,
    entry: str | None,
    dims: tuple[str, ...],
    seconds: float,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure single runs of BUNDLE on this machine, on random inputs.

    \b
    Example:
      tessera bench model.tessera --against onnxruntime --model model.onnx --dims batch=8
    """
    if model is not None and against is None:
        raise click.UsageError("--model is what --against runs: --against onnxruntime")
    found = bench(BenchRequest(bundle, against, model, threads, read_sizes(dims), seconds, entry))
    if as_json:
        print_json(found)
    else:
        print_bench(found)


def print_bench(found: Bench) -> None:
    """A line for each runner, and the ratio."""
    sizes = "".join(f", {name}={size}" for name, size in found.sizes.items())
    plural = "s" if found.threads > 1 else ""
    click.echo(f"{found.target}, {found.entry}, {found.threads} thread{plural}{sizes}, {found.rounds} rounds")
    for times in found.times:
        click.echo(f"  {times.name:<12} median {human_seconds(times.median)}, best {human_seconds(times.minimum)}")
    if found.ratio is not None:
        click.echo(f"  {found.times[1].name} / {found.times[0].name}: {found.ratio:.2f} (median of the rounds' ratios)")
