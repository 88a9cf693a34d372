"""A model's arena beside the least that lives of values allow, and whether a run asks for memory.

    python -m benchmarks.memory MODEL.onnx... [--target native]

Lowers without compiling; prints bytes of arena of the largest entry, the least, their ratio, and how many values get
memory of their own in a run, which happens where data decide sizes. What has dynamic sizes has no least and no ratio.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tessera_build.config import load_target
from tessera_build.driver.machine import machine_of
from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.core.node import walk
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.target.host import Allocate
from tessera_build.lower.program.assemble import lower_module


def main() -> None:
    """Lower every model and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--target", default="native")
    arguments = parser.parse_args()
    machine = machine_of(load_target(arguments.target))
    print(f"{'model':<40}{'arena':>12}{'least':>12}{'ratio':>8}{'in a run':>10}")
    for path in arguments.models:
        lowered = lower_module(run_passes(read_onnx(path)), machine)
        entries, least = lowered.variant.entries, lowered.arena_lower_bound
        asked = sum(isinstance(node, Allocate) for entry in entries for node in walk(entry.nodes))
        sizes = [entry.arena_bytes for entry in entries if isinstance(entry.arena_bytes, int)]
        if len(sizes) == len(entries) and least:
            row = f"{max(sizes):>12}{least:>12}{max(sizes) / least:>8.3f}"
        else:
            row = f"{'dynamic':>12}{'-':>12}{'-':>8}"
        print(f"{path.stem:<40}{row}{asked:>10}", flush=True)


if __name__ == "__main__":
    main()
