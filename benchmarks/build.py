"""Where a build's processor time goes, stage by stage.

`python -m benchmarks.build MODEL.onnx` builds with an empty kernel cache in this process, and prints the processor time
of every stage, of the build's process and of its children, and the largest memory so far. Invariant: times are the
processor's, so that neighbours on a shared machine change them little.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tessera_build
from tessera_build.driver.result import Event


class Stages:
    """Reads the clocks whenever a stage begins."""

    def __init__(self) -> None:
        self._name = ""
        self._before = (0.0, 0.0)

    def __call__(self, event: Event) -> None:
        """A stage's first event has no total."""
        if event.stage != self._name:
            self.finish()
            self._name, self._before = event.stage, _spent()

    def finish(self) -> None:
        """Print the stage that ends here."""
        own, children = (after - before for after, before in zip(_spent(), self._before, strict=True))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        if self._name:
            print(f"{self._name:<9} {own:6.2f} s, children {children:6.2f} s, at most {peak} MiB so far")
        self._name = ""


def _spent() -> tuple[float, float]:
    """Processor seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own, children = (usage.ru_utime + usage.ru_stime for usage in usages)
    return own, children


def main(arguments: Sequence[str] | None = None) -> None:
    """Build once and report."""
    parser = argparse.ArgumentParser(description="Processor time of a build, stage by stage.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--target", default="x86-64-v4")
    parser.add_argument("--no-verify", action="store_true")
    options = parser.parse_args(arguments)
    stages = Stages()
    with tempfile.TemporaryDirectory() as folder:
        result = tessera_build.build(
            options.model,
            [options.target],
            Path(folder) / "model.tessera",
            workers=1,
            verify=not options.no_verify,
            cache=Path(folder) / "kernels",
            progress=stages,
        )
        stages.finish()
    print(f"{result.kernels.compiled} units compiled, {result.bytes} bytes, {result.digest}")


if __name__ == "__main__":
    main()
