"""`tessera run`: a bundle on inputs from files."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import click
import numpy as np

import tessera_runtime
from tessera_build.cli.console import json_option, print_json
from tessera_build.cli.options import FILE, entry_option, threads_option
from tessera_build.config import ConfigError
from tessera_build.driver.once import Outcome, run_once
from tessera_build.driver.outputs import check_apart, whole_file
from tessera_build.ir.graph.nodes import Array

# How .npy and .npz files begin.
NUMPY, ZIP = b"\x93N", b"PK"


@click.command("run")
@click.argument("bundle", type=FILE)
@click.option(
    "--input", "inputs", multiple=True, help="NAME=FILE.npy for one input, or FILE.npz with all of them by name."
)
@click.option("--output", type=FILE, help="Where the outputs go, an .npz file. Default: they are only summed up.")
@entry_option
@threads_option
@json_option
def run_command(
    bundle: Path,
    inputs: tuple[str, ...],
    output: Path | None,
    entry: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run an entry of BUNDLE once on inputs from numpy files.

    What of its state is no input of yours begins as zeros. The state after the run is shown and written like an output,
    under the name by which the next run takes it.

    \b
    Example:
      tessera run model.tessera --input x=in.npy --output out.npz
      tessera run model.tessera --entry net_grad --input x=in.npy --input output_cotangent=ones.npy
    """
    if output is not None:
        check_apart(output, bundle, *(Path(word.partition("=")[2] or word) for word in inputs))
    with tessera_runtime.load(bundle, threads=threads) as model:
        found = run_once(model, entry, read_inputs(inputs))
        if output is not None:
            write_outputs(output, _by_name(found))
        if as_json:
            facts = {"outputs": _all_facts(found.outputs), "state": _all_facts(found.state)}
            print_json({"target": model.target, "entry": found.entry, **facts, "written": output})
            return
        for kind, arrays in (("", found.outputs), ("state ", found.state)):
            for name, fact in _all_facts(arrays).items():
                click.echo(f"{kind}{name}: {fact['dtype']} {fact['shape']}, from {fact['min']} to {fact['max']}")
    if output is not None:
        click.echo(f"written to {output}")


def read_inputs(words: Sequence[str]) -> dict[str, Array]:
    """Arrays by input name; each is given once."""
    found: dict[str, Array] = {}
    for word in words:
        name, equals, path = word.partition("=")
        more = {name: _read(Path(path), word)} if equals else _read_all(Path(word), word)
        twice = sorted(more.keys() & found.keys())
        if twice:
            raise ConfigError("INPUT_TWICE", f"the input {twice[0]!r} is given twice", where=word)
        found |= more
    return found


def _read(path: Path, word: str) -> Array:
    loaded = _load(path, word)
    if isinstance(loaded, np.ndarray):
        return loaded
    raise ConfigError(
        "INPUT_FILE", f"{path} holds arrays by name", where=word, expected=f"an .npy file, or {path} without a name"
    )


def _read_all(path: Path, word: str) -> dict[str, Array]:
    loaded = _load(path, word)
    if isinstance(loaded, np.ndarray):
        raise ConfigError("INPUT_FILE", "which input this is was not said", where=word, expected=f"NAME={path}")
    return loaded


def _load(path: Path, word: str) -> "Array | dict[str, Array]":
    try:
        if not _is_numpy(path):
            raise ValueError("neither of them")  # np.load takes it for a pickle, and says how to load that unsafely
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return cast(Array, loaded)
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(
            "INPUT_FILE", "the input cannot be read", where=word, expected="an .npy or .npz file", found=str(error)
        ) from error


def _is_numpy(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) in (NUMPY, ZIP)


def _by_name(found: Outcome) -> dict[str, Array]:
    """All that a run leaves; a state whose name an output has is `NAME.state`."""
    state = {f"{name}.state" if name in found.outputs else name: array for name, array in found.state.items()}
    return {**found.outputs, **state}


def write_outputs(path: Path, results: Mapping[str, Array]) -> None:
    """An .npz file, all of it or nothing."""
    with whole_file(path) as file:
        np.savez(file, allow_pickle=False, **dict(results))


def _all_facts(arrays: Mapping[str, Array]) -> dict[str, dict[str, object]]:
    return {name: _facts(array) for name, array in arrays.items()}


def _facts(array: Array) -> dict[str, object]:
    numbers = array.astype(np.float64)
    low, high = (float(numbers.min()), float(numbers.max())) if array.size else (None, None)
    return {"dtype": str(array.dtype), "shape": list(array.shape), "min": low, "max": high}
