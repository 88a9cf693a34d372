"""Operators that ONNX itself defines by simpler ones: their function bodies, made for one node.

Takes a node, the versions of the operator sets and the types of its operands; gives the body's nodes over the node's
own names of operands and results. Invariant: a body's own values are named after the node's result, so two expansions
never meet, and every problem inside one names the node it belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import checker, helper

from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.load import DEFAULT_DOMAINS, ELEMENT_TYPES
from tessera_build.ir.core.types import Type

MICROSOFT = "com.microsoft"
_CODES: Mapping[str, int] = {name: code for code, name in ELEMENT_TYPES.items()}
# Operands whose last extent decides how they broadcast inside the body: one a head, or one a column.
_DECIDING: Mapping[str, tuple[int, ...]] = {"LinearAttention": (0, 1, 2, 4, 5)}

# onnxruntime's operators that ONNX took over, and what their further attributes are where they mean the same.
_TAKEN_OVER: Mapping[str, Mapping[str, int]] = {
    "LinearAttention": {"state_window": 0},
    "CausalConvWithState": {"state_window": 0, "channels_last": 0, "dilation": 1, "ndim": 1},
}
_TAKEN_OVER_IN = 27


@dataclass(frozen=True, slots=True)
class Body:
    """A function body for one node: its nodes with names for reports, and the operator sets they speak."""

    nodes: tuple[tuple[onnx.NodeProto, str], ...]
    opsets: Mapping[str, int]


def domain_of(node: onnx.NodeProto | onnx.OperatorSetIdProto | onnx.FunctionProto) -> str:
    """The domain of a node, a function or an operator set, "" for ONNX's own under either of its names."""
    return "" if node.domain in DEFAULT_DOMAINS else node.domain


def has_body(node: onnx.NodeProto, opsets: Mapping[str, int]) -> bool:
    """Whether ONNX defines the node's operator by others."""
    if (domain_of(node), node.op_type) in ((MICROSOFT, name) for name in _TAKEN_OVER):
        return True
    schema = _schema(node, opsets)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def body_of(node: onnx.NodeProto, name: str, opsets: Mapping[str, int], types: Sequence[Type | None]) -> Body | None:
    """The body for a node called `name` with operands of these types; None where ONNX has none for them."""
    node, opsets = _taken_over(node, opsets)
    schema = _schema(node, opsets)
    if schema is None:
        return None
    _check(schema, node, opsets, types)
    function = _function(schema, node, opsets, types)
    if function is None:
        return None
    names = dict(zip(function.input, node.input, strict=False))
    names |= dict.fromkeys(function.input[len(node.input) :], "")
    names |= {inner: outer for inner, outer in zip(function.output, node.output, strict=False) if outer}
    given = _attributes(schema, function, node)
    own = next(o for o in node.output if o)  # distinct in a model, unlike names of nodes
    nodes = tuple(
        (_bound(inner, names, given, own), f"{name}/{inner.op_type}_{i}") for i, inner in enumerate(function.node)
    )
    return Body(nodes, {domain_of(o): o.version for o in function.opset_import})


def _taken_over(node: onnx.NodeProto, opsets: Mapping[str, int]) -> tuple[onnx.NodeProto, Mapping[str, int]]:
    """The node under the name that ONNX has for it."""
    if domain_of(node) != MICROSOFT or node.op_type not in _TAKEN_OVER:
        return node, opsets
    usual = _TAKEN_OVER[node.op_type]
    other = [a.name for a in node.attribute if a.name in usual and a.i != usual[a.name]]
    if other:
        raise unsupported(f"{node.op_type} with {' and '.join(other)} is not built")
    own = onnx.NodeProto()
    own.CopyFrom(node)
    own.domain = ""
    del own.attribute[:]
    own.attribute.extend(a for a in node.attribute if a.name not in usual)
    return own, {**opsets, "": max(opsets.get("", 0), _TAKEN_OVER_IN)}


def _schema(node: onnx.NodeProto, opsets: Mapping[str, int]) -> onnx.defs.OpSchema | None:
    domain = domain_of(node)
    try:
        return onnx.defs.get_schema(node.op_type, opsets.get(domain, 1), domain)
    except onnx.defs.SchemaError:
        return None


def _check(
    schema: onnx.defs.OpSchema, node: onnx.NodeProto, opsets: Mapping[str, int], types: Sequence[Type | None]
) -> None:
    """Refuse what onnx's makers of bodies take for granted: they end the process over a node that is ill-formed."""
    context = checker.C.CheckerContext()
    context.ir_version, context.opset_imports = checker.DEFAULT_CONTEXT.ir_version, dict(opsets)
    try:
        checker.check_node(node, context)
    except checker.ValidationError as error:
        raise ill_formed(f"{node.op_type} breaks the operator's rules", found=str(error).splitlines()[0]) from error
    required = [i for i in schema.inputs if i.option == onnx.defs.OpSchema.FormalParameterOption.Single]
    if any(t is None for t in types[: len(required)]):
        raise ill_formed(f"{node.op_type} has no operand where one is required")
    for position in _DECIDING.get(node.op_type, ()):
        known = types[position] if position < len(types) else None
        if known is not None and not isinstance(known.shape[-1], int):
            raise unsupported(f"{node.op_type} with a symbolic shape in the last axis of an operand", found=str(known))


def _function(
    schema: onnx.defs.OpSchema, node: onnx.NodeProto, opsets: Mapping[str, int], types: Sequence[Type | None]
) -> onnx.FunctionProto | None:
    """The newest body that the model's version of ONNX may use."""
    newest = opsets.get("", onnx.defs.onnx_opset_version())
    fixed = [v for v in schema.function_opset_versions if v <= newest]
    if fixed:
        return _parsed(schema.get_function_with_opset_version(fixed[-1]))
    typed = schema.context_dependent_function_opset_versions
    usable = [v for v in typed if v <= newest] or typed[:1]
    if not usable:
        return None
    protos = [_type_proto(t).SerializeToString() for t in types]
    text = schema.get_context_dependent_function_with_opset_version(usable[-1], node.SerializeToString(), protos)
    return _parsed(text) if text else None


def _parsed(text: bytes) -> onnx.FunctionProto:
    function = onnx.FunctionProto()
    function.ParseFromString(text)
    return function


def _type_proto(type_: Type | None) -> onnx.TypeProto:
    if type_ is None:
        return onnx.TypeProto()
    shape = [e if isinstance(e, int) else str(e) for e in type_.shape]
    return helper.make_tensor_type_proto(_CODES[type_.dtype.name], shape)


def _attributes(
    schema: onnx.defs.OpSchema, function: onnx.FunctionProto, node: onnx.NodeProto
) -> dict[str, onnx.AttributeProto]:
    """What references to attributes mean inside the body: the node's own, else defaults."""
    given = {name: a.default_value for name, a in schema.attributes.items() if a.default_value.type}
    given |= {a.name: a for a in function.attribute_proto}
    return given | {a.name: a for a in node.attribute}


def _bound(
    inner: onnx.NodeProto, names: dict[str, str], given: Mapping[str, onnx.AttributeProto], prefix: str
) -> onnx.NodeProto:
    """A node of the body under outer names, with its references to attributes replaced; adds its results to `names`."""
    node = onnx.NodeProto()
    node.CopyFrom(inner)
    node.input[:] = [names[i] if i else "" for i in inner.input]
    node.output[:] = [_fresh(o, names, prefix) for o in inner.output]
    del node.attribute[:]
    for attribute in inner.attribute:
        if not attribute.ref_attr_name:
            node.attribute.append(_renamed(attribute, names))
        elif attribute.ref_attr_name in given:
            copy = onnx.AttributeProto()
            copy.CopyFrom(given[attribute.ref_attr_name])
            copy.name = attribute.name
            node.attribute.append(copy)
    return node


def _fresh(output: str, names: dict[str, str], prefix: str) -> str:
    if output and output not in names:
        names[output] = f"{prefix}::{output}"
    return names[output] if output else ""


def _renamed(attribute: onnx.AttributeProto, names: Mapping[str, str]) -> onnx.AttributeProto:
    """An attribute whose subgraphs read the body's values by their outer names."""
    copy = onnx.AttributeProto()
    copy.CopyFrom(attribute)
    for graph in (copy.g, *copy.graphs) if attribute.type == onnx.AttributeProto.GRAPH or copy.graphs else ():
        own = {i.name for i in graph.input} | {i.name for i in graph.initializer}
        for node in graph.node:
            node.input[:] = [i if i in own else names.get(i, i) for i in node.input]
            own |= set(node.output)
            nested = [_renamed(a, {k: v for k, v in names.items() if k not in own}) for a in node.attribute]
            del node.attribute[:]
            node.attribute.extend(nested)
    return copy
