"""`tessera profile`: where the time of a bundle goes, kernel by kernel."""

from pathlib import Path

import click

from tessera_build.cli.console import human_seconds, json_option, print_json
from tessera_build.cli.options import FILE, entry_option, read_sizes, seconds_option, threads_option
from tessera_build.driver.profile import KernelRow, Profile, ProfileRequest, profile


@click.command("profile")
@click.argument("bundle", type=FILE)
@entry_option
@click.option("--dims", "--dim", "dims", multiple=True, help="Sizes of dynamic dims: N=8,S=128. Default: 1 if it may.")
@seconds_option
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="How many kernels to show.")
@click.option("--trace", type=FILE, help="Write the median run as a trace for ui.perfetto.dev.")
@threads_option
@json_option
def profile_command(
    bundle: Path,
    entry: str | None,
    dims: tuple[str, ...],
    seconds: float,
    top: int,
    trace: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Time every kernel of BUNDLE on this machine, on random inputs, beside what the machine could do at most.

    `of roof` compares a kernel's time with the least that its arithmetic, or its bytes read once from the second-level
    cache, could take; both limits are measured in the same run.

    \b
    Example:
      tessera profile model.tessera --threads 1 --trace run.json
    """
    found = profile(ProfileRequest(bundle, entry, threads, read_sizes(dims), seconds, trace))
    if as_json:
        print_json(found)
        return
    print_profile(found, top)
    if trace is not None:
        click.echo(f"written {trace}: open it in https://ui.perfetto.dev")


def print_profile(found: Profile, top: int) -> None:
    """The table, dearest kernel first."""
    sizes = "".join(f", {name}={size}" for name, size in found.sizes.items())
    roof, plural = found.roofline, "s" if found.threads > 1 else ""
    click.echo(f"{found.target}, {found.entry}, {found.threads} thread{plural}{sizes}, {found.rounds} rounds")
    outside = human_seconds(found.outside)
    click.echo(
        f"run {human_seconds(found.seconds)}; profiled {human_seconds(found.profiled)}, {outside} outside kernels"
    )
    caches = f"{roof.cache_gbps:.0f} GB/s from L2, {roof.memory_gbps:.0f} GB/s from memory"
    click.echo(f"one core: {roof.gflops:.0f} GFLOP/s, {caches}")
    click.echo(f"{'time':>10} {'share':>7} {'launches':>9} {'GFLOP/s':>9} {'GB/s':>7} {'of roof':>8}  node")
    for row in found.rows[:top]:
        click.echo(_line(row))
    rest = found.rows[top:]
    if rest:
        time, share = human_seconds(sum(r.seconds for r in rest)), sum(r.share for r in rest)
        click.echo(f"{time:>10} {share:>7.1%}  {len(rest)} more")


def _line(row: KernelRow) -> str:
    speed = "-" if row.operations is None else f"{row.operations / max(row.seconds, 1e-12) / 1e9:.1f}"
    traffic = "-" if row.bytes is None else f"{row.bytes / max(row.seconds, 1e-12) / 1e9:.1f}"
    roof = "-" if row.of_roof is None else f"{row.of_roof:.0%}"
    start = f"{human_seconds(row.seconds):>10} {row.share:>7.1%} {row.launches:>9.0f}"
    return f"{start} {speed:>9} {traffic:>7} {roof:>8}  {row.node}"
