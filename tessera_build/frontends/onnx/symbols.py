"""Names and ranges of a model's dynamic dims.

Takes the inputs' protobuf types and what the caller fixed or bounded; gives input types over identifiers. Invariant:
a dim that the model names is one symbol wherever it occurs, and a dim without a name is a symbol of its own.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

import onnx

from tessera_build.config import ConfigError
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.load import element_type
from tessera_build.ir.core.dims import Dim, DimRequest, Extent, Range, substitute, symbol
from tessera_build.ir.core.types import Type, tensor
from tessera_build.ir.graph.infer import check_size


@dataclass(slots=True)
class Symbols:
    """The dims of one model: `names` maps identifiers to the model's own names, `ranges` bounds those still free."""

    names: dict[str, str] = field(default_factory=dict[str, str])
    ranges: dict[str, Range] = field(default_factory=dict[str, Range])
    values: dict[str, Extent] = field(default_factory=dict[str, Extent])

    def input_type(self, info: onnx.ValueInfoProto) -> Type:
        """The type of an input, its dynamic dims as symbols."""
        kind = info.type.WhichOneof("value")
        if kind != "tensor_type":
            raise unsupported(f"input {info.name!r} is no tensor", found=str(kind).removesuffix("_type"))
        proto = info.type.tensor_type
        dtype = element_type(proto.elem_type, f"input {info.name!r}")
        if not proto.HasField("shape"):
            raise unsupported(
                f"input {info.name!r} has no shape", hint="its rank must be known: state a shape, dynamic dims by name"
            )
        type_ = tensor(dtype, *(self._extent(info.name, axis, d) for axis, d in enumerate(proto.shape.dim)))
        check_size(type_)
        return type_

    def _extent(self, tensor_name: str, axis: int, dim: onnx.TensorShapeProto.Dimension) -> Extent:
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            return dim.dim_value
        # Some exporters write "?" for every dim that they don't know; such dims are not one dim.
        named = dim.dim_param if any(c.isalnum() for c in dim.dim_param) else ""
        name = self._identifier(named or f"{tensor_name}_d{axis}", shared=bool(named))
        self.ranges.setdefault(name, (1, None))
        return substitute(symbol(name), self.values)

    def _identifier(self, original: str, shared: bool) -> str:
        """The identifier for a dim; distinct dims never share one."""
        name = re.sub(r"\W", "_", original, flags=re.ASCII)
        if name[0].isdigit() or keyword.iskeyword(name):
            name = f"d_{name}"
        while name in self.names and not (shared and self.names[name] == original):
            name += "_"
        self.names[name] = original
        return name

    def free(self) -> dict[str, Range]:
        """Ranges of the dims that are not fixed."""
        return {name: limits for name, limits in self.ranges.items() if name not in self.values}

    def restart(self) -> Symbols:
        """The same knowledge, before any input was read."""
        return Symbols({}, dict(self.ranges), dict(self.values))

    def learn(self, name: str, extent: Extent) -> None:
        """Replace a symbol by an extent; raises when its range forbids that."""
        low, high = self.ranges.get(name, (1, None))
        if isinstance(extent, int) and ((low is not None and extent < low) or (high is not None and extent > high)):
            raise ill_formed(f"dim {name} must be {extent} for the model's shapes to agree", found=f"{low}..{high}")
        if isinstance(extent, Dim) and str(extent) in self.ranges:
            self.ranges[str(extent)] = _intersection(self.ranges[str(extent)], (low, high))
        self.values = {n: substitute(e, {name: extent}) for n, e in self.values.items()} | {name: extent}


def _intersection(left: Range, right: Range) -> Range:
    """The range of a dim that must lie in both."""
    lows = [e for e in (left[0], right[0]) if e is not None]
    highs = [e for e in (left[1], right[1]) if e is not None]
    low, high = max(lows, default=None), min(highs, default=None)
    if low is not None and high is not None and low > high:
        raise ill_formed("two dims must be equal, but their ranges have nothing in common", found=f"{left}, {right}")
    return low, high


def apply_requests(symbols: Symbols, requests: Mapping[str, DimRequest]) -> None:
    """Fix or bound dims by the names the model or Tessera gives them; raises `ConfigError` for an unknown name."""
    by_name = {original: name for name, original in symbols.names.items()} | {n: n for n in symbols.names}
    for requested, limits in requests.items():
        if requested not in by_name:
            raise _unknown_dim(requested, symbols)
        low, high = (limits, limits) if isinstance(limits, int) else limits
        if low < 0 or (high is not None and (low > high or high < 1)):
            message = f"dim {requested} has an empty range"
            raise ConfigError("BAD_DIM", message, expected="0 <= low <= high, and 1 <= high", found=str(limits))
        name = by_name[requested]
        symbols.ranges[name] = (low, high)
        if low == high:
            symbols.values[name] = low


def _unknown_dim(requested: str, symbols: Symbols) -> ConfigError:
    near = get_close_matches(requested, symbols.names)
    return ConfigError(
        "BAD_DIM",
        f"the model has no dynamic dim {requested!r}",
        expected=", ".join(sorted(symbols.names)) or "no dim: all shapes are static",
        hint=f"did you mean {near[0]}?" if near else None,
    )
