"""`tessera verify`: every byte of a bundle, and every answer that this machine can give."""

from pathlib import Path

import click

from tessera_build.cli.console import json_option, print_json
from tessera_build.cli.options import FILE
from tessera_build.driver.verify_bundle import verify_bundle


@click.command("verify")
@click.argument("bundle", type=FILE)
@click.argument("model", type=FILE, required=False)
@json_option
def verify_command(bundle: Path, model: Path | None, as_json: bool) -> None:
    """Check all digests of BUNDLE and run it: against onnxruntime when MODEL is given, else against its recorded proof.

    \b
    Example:
      tessera verify model.tessera model.onnx
    """
    found = verify_bundle(bundle, model)
    if as_json:
        print_json(found)
        return
    click.echo(f"{found.digest}: {found.blobs} blobs, all with their digests")
    for check in found.variants:
        error = "" if check.max_error is None else f", error {check.max_error:.1e}"
        runs = f" {check.cases} runs{error}" if check.cases else ""
        click.echo(f"{check.target}: {check.method}{runs} ({check.note})")
