"""In which operands ops are linear, while their other operands are constant.

Takes nothing; gives `LINEAR` by the name of the op. Invariant: each op whose row of derivatives has a transposition
stands here, and no op is said to be linear in what it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tessera_build.ir.graph.ops.op import Attributes, dtype_attribute


def _always(_: Attributes) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Linear:
    """The op is linear in the operands of each group together, where `when` holds; no group: in all operands."""

    groups: tuple[tuple[int, ...], ...] = ()
    when: Callable[[Attributes], bool] = _always

    def of(self, count: int, attributes: Attributes) -> tuple[tuple[int, ...], ...]:
        """The groups of a node with this many operands."""
        if not self.when(attributes):
            return ()
        return self.groups or (tuple(range(count)),)


def _sums(attributes: Attributes) -> bool:
    return attributes["kind"] == "sum"


def _adds(attributes: Attributes) -> bool:
    return attributes["reduction"] in ("add", "none")


_FIRST, _EITHER, _BOTH = Linear(((0,),)), Linear(((0,), (1,))), Linear(((0, 1),))

LINEAR: Mapping[str, Linear] = MappingProxyType(
    {
        **dict.fromkeys(("add", "sub"), _BOTH),
        **dict.fromkeys(("mul", "matmul", "conv"), _EITHER),
        **dict.fromkeys(("neg", "div", "reshape", "transpose", "broadcast_to", "slice"), _FIRST),
        **dict.fromkeys(("gather", "gather_elements", "repeat", "depth_to_space"), _FIRST),
        **dict.fromkeys(("reduce", "reduce_window", "cumulate"), Linear(((0,),), _sums)),
        **dict.fromkeys(("scatter_elements", "scatter_nd"), Linear(((0, 2),), _adds)),
        "cast": Linear(((0,),), lambda attributes: dtype_attribute(attributes, "dtype").is_float),
        "pad": Linear(((0,),), lambda attributes: attributes["value"] == 0),
        "concat": Linear(),
        "select": Linear(((1, 2),)),
        "scatter_rows": _BOTH,
        "resample": Linear(((0,), (2,))),
        "look_up": Linear(((2, 3),)),
        "solve": Linear(((1,),)),
        "attention": Linear(((2,),)),
    }
)
