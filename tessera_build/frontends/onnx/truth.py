"""What the importer knows of values before it builds control flow from them.

Takes values; gives truths and tensors. Invariant: what is not known is None or refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tessera_build.frontends.onnx.containers import Value
from tessera_build.frontends.onnx.content import is_symbolic
from tessera_build.frontends.onnx.context import Tensor
from tessera_build.frontends.onnx.errors import unsupported


def known_truth(value: Tensor) -> bool | None:
    """A condition that is known at build time."""
    if value.content is None or is_symbolic(value.content):
        return None
    return bool(np.asarray(value.content).reshape(()).item())


def tensors(what: str, values: Sequence[Value]) -> tuple[Tensor, ...]:
    """Values that must be tensors."""
    found = tuple(v for v in values if isinstance(v, Tensor))
    if len(found) < len(values):
        raise unsupported(f"{what} gives a sequence or an optional that only a run knows")
    return found
