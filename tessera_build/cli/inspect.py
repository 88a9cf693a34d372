"""`tessera inspect`: what a bundle holds, at any level."""

from collections.abc import Mapping
from pathlib import Path

import click

from tessera_build.cli.console import human_bytes, json_option, print_json, workspace_text
from tessera_build.cli.options import FILE
from tessera_build.driver.inspect import ASSEMBLY, Summary, identity, show_level, summary
from tessera_build.driver.opened import LEVELS


@click.command("inspect")
@click.argument("bundle", type=FILE)
@click.option("--digest", "only_digest", is_flag=True, help="Print the bundle's identity and nothing else.")
@click.option("--level", type=click.Choice([*LEVELS, ASSEMBLY]), help="Print the text of one level.")
@click.option("--op", "operator", help="Only the parts that belong to this operator; without --level, at every level.")
@click.option("--target", help="Which variant. Default: all; of a level, the one with the most features.")
@json_option
def inspect_command(
    bundle: Path, only_digest: bool, level: str | None, operator: str | None, target: str | None, as_json: bool
) -> None:
    """Show what BUNDLE holds: its signature, targets and proofs, or the IR of a level.

    \b
    Example:
      tessera inspect model.tessera --digest
      tessera inspect model.tessera --level tile --op conv1
    """
    if only_digest:
        if level or operator or target:
            raise click.UsageError("--digest is that of the whole bundle: leave out --level, --op and --target")
        digest = str(identity(bundle))
        print_json({"digest": digest}) if as_json else click.echo(digest)
    elif level is not None or operator is not None:
        asked = (*LEVELS, ASSEMBLY) if level is None else (level,)
        _print_levels({each: show_level(bundle, each, target, operator) for each in asked}, as_json)
    elif as_json:
        print_json(summary(bundle, target))
    else:
        _print_summary(summary(bundle, target))


def _print_levels(texts: Mapping[str, str], as_json: bool) -> None:
    """One text as it is, so that it can be read back; several under their names."""
    if as_json:
        print_json({"levels": texts})
    elif len(texts) == 1:
        click.echo("".join(texts.values()), nl=False)
    else:
        for level, text in texts.items():
            click.echo(f"// {level}\n{text}")


def _print_summary(found: Summary) -> None:
    click.echo(f"{found.path}\n{found.digest}\nmade by {found.producer} with {', '.join(found.tools)}")
    for line in (*found.signature, *found.sources):
        click.echo(f"  {line}")
    for variant in found.variants:
        sizes = (variant.code_bytes, variant.ir_bytes, variant.weight_bytes)
        code, texts, weights = (human_bytes(size) for size in sizes)
        click.echo(f"{variant.target} ({variant.arch}): {variant.operators} operators")
        click.echo(f"  code {code}, IR {texts}, {variant.weights} weights {weights}")
        for space in variant.workspaces:
            click.echo(f"  workspace of {workspace_text(space)}")
        click.echo(f"  needs {' '.join(variant.features) or 'nothing beyond the architecture'}")
        if variant.proof is None:
            click.echo("  no proof attached")
        else:
            proof = variant.proof
            references = ", ".join(f"{name} {version}" for name, version in sorted(proof.references.items()))
            click.echo(
                f"  proved ({proof.method}) on {proof.machine} against {references}: outputs {proof.max_error:.1e}, "
                f"{len(proof.groups)} groups {proof.max_group_error:.1e}"
            )
