"""`tessera build`: a model becomes a proved bundle."""

from pathlib import Path

import click

from tessera_build.cli.console import human_bytes, json_option, print_json, watching, workspace_text
from tessera_build.cli.options import FILE, read_amount, read_bytes, read_dims, split_targets
from tessera_build.config import BuildConfig, load_build
from tessera_build.driver.build import build
from tessera_build.driver.result import BuildResult

ALL_CHECKS = "nan,inf,bounds"
_EXAMPLES = """\b
Example:
  tessera build model.onnx --target x86-64-v4,x86-64-v3 --dims batch=1:64,seq=128 -o model.tessera
  tessera build model.py --entry mlp --dims B=1:64

\b
To compute some tasks as you say (docs/schedules.md):
  tessera inspect model.tessera --level schedule --op linear > linear.mlir
  tessera build model.onnx --schedule linear.mlir -o model.tessera
"""


@click.command("build", epilog=_EXAMPLES)
@click.argument("model", type=FILE)
@click.option(
    "--target", "targets", multiple=True, help="Names of targets (`tessera targets`), comma-separated. Default: native."
)
@click.option("-o", "--output", type=FILE, help="Where the bundle goes. Default: the model's name with .tessera.")
@click.option("--config", type=FILE, help="A YAML file with build options; configs/build/default.yaml shows them all.")
@click.option("--dims", "--dim", "dims", multiple=True, help="Fix (N=4) or bound (N=1:64) dynamic dims: N=1:64,S=128.")
@click.option("--entry", "entries", multiple=True, help="Entries of a model.py. Default: all that it offers.")
@click.option("--workers", type=click.IntRange(min=1), help="Compile processes. The bytes do not depend on it.")
@click.option("--no-verify", is_flag=True, help="Leave out the proof against the references.")
@click.option(
    "--proof-memory",
    callback=read_bytes,
    help="What the proof's values may take: 16GiB. Default: by the weights' size.",
)
@click.option(
    "--proof-operations",
    type=click.FloatRange(min=0, min_open=True),
    callback=read_amount,
    help="What the proof may compute: 1e13. Default: by the weights' size.",
)
@click.option("--debug", is_flag=True, help="A bundle that looks at every node's results as it runs: slow, not proved.")
@click.option("--checks", help=f"What a --debug bundle looks for in them. Default: {ALL_CHECKS}.")
@click.option(
    "--schedule",
    "schedules",
    type=FILE,
    help="Schedules of tasks by name, as `inspect --level schedule` has them.",
)
@click.option("--no-cache", is_flag=True, help="Compile every kernel anew.")
@json_option
def build_command(
    model: Path,
    targets: tuple[str, ...],
    output: Path | None,
    config: Path | None,
    dims: tuple[str, ...],
    entries: tuple[str, ...],
    workers: int | None,
    no_verify: bool,
    proof_memory: int | None,
    proof_operations: float | None,
    debug: bool,
    checks: str | None,
    schedules: Path | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Build MODEL, an ONNX file or a model.py, into a bundle, and prove its answers against the references."""
    if checks is not None and not (debug and checks.strip(", ")):
        raise click.UsageError("--checks names what a --debug bundle looks for: --debug --checks nan,bounds")
    with watching(quiet=as_json) as watch:
        result = build(
            model,
            split_targets(targets),
            output or Path(model.stem + ".tessera"),
            config=load_build(config) if config else BuildConfig(),
            dims=read_dims(dims),
            workers=workers,
            verify=not no_verify,
            cache=not no_cache,
            progress=watch,
            proof_bytes=proof_memory,
            debug=(checks or ALL_CHECKS) if debug else "",
            entries=entries,
            proof_operations=proof_operations,
            schedules=schedules,
        )
    (print_json if as_json else print_result)(result)


def print_result(result: BuildResult) -> None:
    """What was built, how it was proved, where the time went."""
    click.echo(f"bundle    {result.path} ({human_bytes(result.bytes)})")
    click.echo(f"digest    {result.digest}")
    for proof in result.verification:
        where = "run here" if proof.method == "native" else "sampled at tile level"
        click.echo(
            f"verified  {proof.target}: {where}, {len(proof.cases)} runs with error {proof.max_error:.1e}, "
            f"{len(proof.groups)} operator groups with error {proof.max_group_error:.1e}"
        )
    for space in result.workspaces:
        where = f"{space.target}, " if len(result.targets) > 1 else ""
        click.echo(f"workspace {where}{workspace_text(space)}")
    kernels = result.kernels
    click.echo(f"kernels   {kernels.compiled} compiled, {kernels.cached} from the cache")
    click.echo("time      " + ", ".join(f"{timing.stage} {timing.seconds:.1f} s" for timing in result.timings))
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
