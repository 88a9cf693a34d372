"""A recursion that ran out, told as an error about the model: what it followed, as far as its frames say.

Takes the exception, the stage and the model's name; gives an `UnsupportedError`. Invariant: dims are blamed only where
an expression over them was what the recursing functions were called with.
"""

from __future__ import annotations

import collections
import traceback
from pathlib import Path
from types import FrameType
from typing import Final

from tessera_build.frontends.onnx import UnsupportedError
from tessera_build.ir.core.dims import Atom, Dim

_CODE: Final = "NESTED_TOO_DEEP"
# Nothing that only calls on, stage after stage, stands on the stack so often.
_REPEATED: Final = 50


def nested_too_deep(error: RecursionError, stage: str, where: str) -> UnsupportedError:
    """The error for a model in which something nests deeper than Tessera follows."""
    frames = _recursing(error)
    if any(isinstance(value, (Atom, Dim)) for frame in frames for value in frame.f_locals.values()):
        return UnsupportedError(
            _CODE,
            "expressions over the model's dims nest deeper than Tessera follows",
            where=where,
            hint="fix dims with --dims, so that fewer of them are symbolic",
        )
    return UnsupportedError(
        _CODE,
        f"something in the model nests, or is chained, deeper than the stage {stage!r} of the build follows",
        where=where,
        found=f"{len(frames)} calls within each other of {_name(frames[-1])}" if frames else None,
        hint="cut the model into smaller ones, or report it with this text",
    )


def _recursing(error: RecursionError) -> list[FrameType]:
    """The calls of the function that stands on the stack most often; none where the stack is another process's."""
    found: dict[object, list[FrameType]] = collections.defaultdict(list)
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found[frame.f_code].append(frame)
    most = max(found.values(), key=len, default=list[FrameType]())
    return most if len(most) >= _REPEATED else []


def _name(frame: FrameType) -> str:
    return f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname}"
