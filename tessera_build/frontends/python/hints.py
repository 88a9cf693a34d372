"""What an author may have meant, where Python itself refuses a line of a model.

Takes the exception; gives one sentence, or None where there is nothing to say. Invariant: a hint names what the
language has, as it is written in a model.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from difflib import get_close_matches

import tessera
from tessera import graph, op
from tessera.model.numeric import Numeric
from tessera.op import random

_OFFER = "the language offers: from tessera import graph, op, Tensor, f32, bf16, accum, KVCache, ..."
_HOMES: dict[str, object] = {"op": op, "graph": graph, "op.random": random}


def hint_of(error: BaseException) -> str | None:
    """The sentence."""
    text = str(error)
    if isinstance(error, RecursionError):
        return "a model's Python runs once, without data: recursion on tensors never ends; op.while_ and op.scan do"
    if isinstance(error, TypeError):
        return _of_type_error(text)
    if isinstance(error, FrozenInstanceError):
        return "a state is never changed: state.set(x) and cache.append(keys, values) give the next one"
    if isinstance(error, AttributeError):
        return _near_attribute(text)
    if isinstance(error, ImportError):
        return _near(text, r"import name '(\w+)' from 'tessera'", tessera.__all__) or _OFFER
    return _OFFER if isinstance(error, NameError) else None


def _of_type_error(text: str) -> str | None:
    if "'Size'" in text:
        return "an extent has no number until the model runs: graph.require demands one, --dims B=4 fixes it"
    if "__array_ufunc__" in text:
        return "numpy cannot compute with tensors: op has functions of the same names"
    called = re.match(r"(?:\w+\.)*(\w+)\(\) ", text)
    if called is None:
        return None
    for home, module in _HOMES.items():
        function = vars(module).get(called[1])
        if inspect.isfunction(function):
            return f"{home}.{called[1]}({', '.join(_parameters(function))})"
    return None


def _parameters(function: Callable[..., object]) -> list[str]:
    """Parameters as a call writes them, without their types."""
    found: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind == parameter.KEYWORD_ONLY and "*" not in found:
            found.append("*")
        default = "" if parameter.default is parameter.empty else f"={_written(parameter.default)}"
        found.append(f"{parameter.name}{default}")
    return found


def _written(default: object) -> str:
    return str(default) if isinstance(default, Numeric) else repr(default)


def _near_attribute(text: str) -> str:
    for home, module in _HOMES.items():
        names = [n for n in vars(module) if not n.startswith("_")]
        near = _near(text, rf"module 'tessera\.{home}' has no attribute '(\w+)'", names, f"{home}.")
        if near is not None:
            return near
    near = _near(text, r"'(?:Tensor|Parameter)' object has no attribute '(\w+)'", op.__all__, "op.")
    return near or _OFFER


def _near(text: str, pattern: str, names: list[str], before: str = "") -> str | None:
    """The names that look like the one in a message."""
    found = re.search(pattern, text)
    if found is None:
        return None
    near = get_close_matches(found[1], names) + [n for n in names if n.endswith(f"_{found[1]}")]
    return f"did you mean {' or '.join(before + name for name in dict.fromkeys(near))}?" if near else None
