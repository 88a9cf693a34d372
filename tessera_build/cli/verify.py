"""`tessera verify`: every byte of a bundle, and every answer that this machine can give."""

import sys
from pathlib import Path

import click

from tessera_build.cli.console import json_option, print_json
from tessera_build.cli.options import FILE, read_dims
from tessera_build.cli.run import read_inputs
from tessera_build.driver.bisect import BisectRequest
from tessera_build.driver.bisect import bisect as run_bisect
from tessera_build.driver.verify_bundle import verify_bundle
from tessera_build.verify.errors import VerificationError

_WORST = 10


@click.command("verify")
@click.argument("bundle", type=FILE)
@click.argument("model", type=FILE, required=False)
@click.option("--bisect", is_flag=True, help="Find the first group of operators that is wrong on your own --input.")
@click.option("--input", "inputs", multiple=True, help="NAME=FILE.npy for one input, or FILE.npz with all by name.")
@click.option(
    "--out", type=FILE, default=Path("reproducer"), show_default=True, help="Where --bisect puts what it finds."
)
@click.option("--dims", "--dim", "dims", multiple=True, help="The dims that the build was given, for --bisect.")
@json_option
def verify_command(
    bundle: Path,
    model: Path | None,
    bisect: bool,
    inputs: tuple[str, ...],
    out: Path,
    dims: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check all digests of BUNDLE and run it: against onnxruntime when MODEL is given, else against its recorded proof.

    With --bisect, every group of operators is compared with the reference on the inputs that you give, and the first
    that is wrong is cut out: a small model, its inputs, and both outputs.

    \b
    Example:
      tessera verify model.tessera model.onnx
      tessera verify model.tessera model.onnx --bisect --input x=bad.npy --out reproducer
    """
    if bisect:
        _bisect(_request(bundle, model, inputs, out, dims), as_json)
        return
    if inputs or dims:
        raise click.UsageError("--input and --dims are for --bisect")
    found = verify_bundle(bundle, model)
    if as_json:
        print_json(found)
        return
    click.echo(f"{found.digest}: {found.blobs} blobs, all with their digests")
    for check in found.variants:
        error = "" if check.max_error is None else f", error {check.max_error:.1e}"
        runs = f" {check.cases} runs{error}" if check.cases else ""
        click.echo(f"{check.target}: {check.method}{runs} ({check.note})")


def _request(
    bundle: Path, model: Path | None, inputs: tuple[str, ...], out: Path, dims: tuple[str, ...]
) -> BisectRequest:
    if model is None or not inputs:
        raise click.UsageError("--bisect needs the MODEL that the bundle was built from, and --input")
    return BisectRequest(bundle, model, read_inputs(inputs), out, read_dims(dims))


def _bisect(request: BisectRequest, as_json: bool) -> None:
    found = run_bisect(request)
    if as_json:
        print_json(found)
    else:
        for name, error in found.outputs.items():
            click.echo(f"output {name}: error {error:.1e} against onnxruntime")
        for result in sorted(found.groups, key=lambda r: -r.error)[:_WORST]:
            state = "" if result.accepted else "  WRONG"
            click.echo(f"  {result.node}: error {result.error:.1e}, limit {result.limit:.1e}{state}")
        click.echo(f"{len(found.groups)} groups compared: {found.note}")
        for path in found.written:
            click.echo(f"written {path}")
    if found.first is not None:
        sys.exit(VerificationError.exit_code)
