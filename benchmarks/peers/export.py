"""Recipes as files: each name's ONNX model and its inputs.

Takes names and a folder; gives NAME.onnx and NAME.npz. Invariant: the same name and version of PyTorch give the same
weights and inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks.peers.images import IMAGES
from benchmarks.peers.kernels import KERNELS
from benchmarks.peers.pixels import PIXELS
from benchmarks.peers.recipes import BATCHED, SINGLE, Recipe
from benchmarks.peers.sequences import SEQUENCES
from benchmarks.peers.tokens import TOKENS

SEED: Final = 7


def recipe(name: str) -> Recipe:
    """The module and inputs of a name, or of NAME_batchN."""
    torch.manual_seed(SEED)
    kind, _, batch = name.partition("_batch")
    with torch.no_grad():
        found = (
            BATCHED[kind](int(batch or 1))
            if kind in BATCHED
            else {**SINGLE, **KERNELS, **IMAGES, **PIXELS, **SEQUENCES, **TOKENS}[name]()
        )
    found.module.eval()
    return found


def export(names: Sequence[str], folder: Path) -> None:
    """Write NAME.onnx and NAME.npz (its inputs) for each name that is not there yet."""
    for name in names:
        path = folder / f"{name}.onnx"
        if path.exists():
            continue
        made = recipe(name)
        np.savez(path.with_suffix(".npz"), **made.feeds())  # type: ignore[arg-type]
        write(made, path)


def write(made: Recipe, path: Path, *, trains: bool = False) -> None:
    """The ONNX file, which is there whole or not at all; where the recipe trains, nothing is folded."""
    unfinished = path.with_suffix(".part")
    modes = torch.onnx.TrainingMode
    torch.onnx.export(
        made.module,
        tuple(made.inputs.values()),
        str(unfinished),
        input_names=list(made.inputs),
        output_names=list(made.outputs),
        opset_version=17,
        dynamo=False,
        do_constant_folding=not trains,
        training=modes.TRAINING if trains else modes.EVAL,
    )
    unfinished.rename(path)
