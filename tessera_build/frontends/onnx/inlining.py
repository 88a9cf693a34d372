"""Functions that a model defines itself, replaced by their bodies.

Takes a model; gives one without functions. Invariant: what the bodies come to is counted before anything is copied, for
functions that call functions grow exponentially: a kilobyte can ask for any number of nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx
from onnx import checker
from onnx.inliner import inline_local_functions

from tessera_build.frontends.onnx.errors import ModelError, UnsupportedError
from tessera_build.frontends.onnx.functions import domain_of
from tessera_build.frontends.onnx.subgraphs import graphs_of

# Large exported networks come to some thousands of nodes, many times what their functions hold once.
MOST_NODES, PER_NODE = 20_000, 16
MOST_BYTES = 1 << 30  # onnx holds a model as one protobuf, which ends at twice that
DEEPEST = 100
_Key = tuple[str, str, str]


def inlined(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """The model without functions; refused where they call themselves, break onnx's rules or grow too large."""
    if not model.functions:
        return model
    functions = {(domain_of(f), f.name, f.overload): f for f in model.functions}
    size = _Sizes(functions, {}, where).of(model.graph.node, ())
    most = MOST_NODES + PER_NODE * (len(model.graph.node) + sum(len(f.node) for f in model.functions))
    if size.nodes > most or size.bytes > MOST_BYTES:
        raise UnsupportedError(
            "FUNCTIONS_TOO_LARGE",
            "the model's functions come to too much when their bodies replace the calls",
            where=where,
            expected=f"at most {most} nodes and {MOST_BYTES >> 20} MiB",
            found=f"{size.nodes} nodes and {size.bytes >> 20} MiB",
        )
    try:
        return inline_local_functions(model)
    except (RuntimeError, ValueError, checker.ValidationError) as error:
        raise _ill_formed(where, str(error).splitlines()[0]) from error


def _ill_formed(where: str, found: str) -> ModelError:
    return ModelError("BAD_MODEL", "the model's functions break the rules of ONNX", where=where, found=found)


@dataclass(frozen=True, slots=True)
class _Size:
    """What nodes come to."""

    nodes: int = 0
    bytes: int = 0

    def plus(self, other: _Size) -> _Size:
        return _Size(self.nodes + other.nodes, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """The sizes of functions with everything they call; each is counted once."""

    functions: Mapping[_Key, onnx.FunctionProto]
    known: dict[_Key, _Size]
    where: str

    def of(self, nodes: Iterable[onnx.NodeProto], callers: tuple[_Key, ...]) -> _Size:
        """The size of nodes, subgraphs and called functions included."""
        total = _Size()
        for node in nodes:
            total = total.plus(_Size(1, node.ByteSize()))
            key = (domain_of(node), node.op_type, node.overload)
            if key in self.functions:
                total = total.plus(self._called(key, callers))
            for graph in graphs_of(node).values():
                total = total.plus(self.of(graph.node, callers))
        return total

    def _called(self, key: _Key, callers: tuple[_Key, ...]) -> _Size:
        if key in callers:
            raise _ill_formed(self.where, f"function {key[1]!r} calls itself")
        if len(callers) >= DEEPEST:
            raise _ill_formed(self.where, f"functions call each other more than {DEEPEST} deep")
        if key not in self.known:
            self.known[key] = self.of(self.functions[key].node, (*callers, key))
        return self.known[key]
