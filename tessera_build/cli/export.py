"""`tessera export`: an entry of a model becomes an ONNX file."""

from pathlib import Path

import click

from tessera_build.cli.console import human_bytes, json_option, print_json
from tessera_build.cli.options import FILE, read_dims
from tessera_build.driver.export import export
from tessera_build.driver.outputs import check_apart


@click.command("export")
@click.argument("model", type=FILE)
@click.option("--entry", help="The entry to write. Default: the only one that the model offers.")
@click.option("-o", "--output", type=FILE, help="Where the file goes. Default: the model's name with .onnx.")
@click.option("--dims", "--dim", "dims", multiple=True, help="Fix (N=4) or bound (N=1:64) dynamic dims: N=1:64,S=128.")
@click.option("--no-verify", is_flag=True, help="Do not run the file by onnxruntime.")
@json_option
def export_command(
    model: Path, entry: str | None, output: Path | None, dims: tuple[str, ...], no_verify: bool, as_json: bool
) -> None:
    """Write an entry of MODEL, a model.py, an ONNX file or a bundle, as ONNX, and run it by onnxruntime.

    \b
    Example:
      tessera export model.py --entry classify -o classify.onnx
      tessera export model.tessera --entry main -o main.onnx
      tessera export model.onnx --dims batch=1 -o fixed.onnx
    """
    out = output or Path(model.stem + ".onnx")
    check_apart(out, model)
    result = export(model, out, entry=entry, dims=read_dims(dims), verify=not no_verify)
    if as_json:
        print_json(result)
        return
    click.echo(f"model     {result.path} ({human_bytes(result.bytes)}): {result.nodes} nodes, opset {result.opset}")
    if result.rounded:
        click.echo(
            f"rounded   told back from transforms, to 5e-7 of the largest beside them: {', '.join(result.rounded)}"
        )
    if result.error is not None:
        click.echo(f"verified  entry {result.entry}: run by onnxruntime with error {result.error:.1e}")
