"""Gradients against torch's own, on the sample inputs that torch tests its operators with.

`agreed.txt` lists the operators whose samples are judged: it may only grow. A sample whose program has an operator that
`aten.py` does not know is passed over; of every listed operator at least one is not. What torch differentiates twice is
judged twice. Missing on purpose are `max_unpool`, where torch gives a place's gradient to every update that went there,
and `as_strided_scatter`, where it gives that of what was written over as well. Needs torch and, for its test module,
expecttest.
"""

# ruff: noqa: ANN401  torch's samples are anything

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")

from torch._decomp import decomposition_table  # noqa: E402
from torch.func import functionalize  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402

from bundle_format.errors import TesseraError  # noqa: E402
from tessera_build.ir.graph.autodiff.entries import with_grad, with_jvp  # noqa: E402
from tessera_build.ir.graph.nodes import Array, Module  # noqa: E402
from tessera_build.ir.graph.reference import run  # noqa: E402
from tests.autodiff import aten  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.numerics, pytest.mark.filterwarnings("ignore")]

AGREED = tuple((Path(__file__).parent / "agreed.txt").read_text().split())
SAMPLES = 12
TWICE = 3  # samples of an operator that are differentiated twice
ELEMENTS = 4000
TABLE = {
    op: made
    for op, made in decomposition_table.items()
    if hasattr(op, "_schema") and op._schema.name.split("::")[-1] not in aten.ROWS
}


@dataclass(frozen=True)
class Sample:
    """One call: a function of tensors alone, which of them are differentiated by, and whether torch does so twice."""

    call: Any
    tensors: Sequence[Any]
    wanted: Sequence[int]
    twice: bool = False

    @property
    def names(self) -> list[str]:
        """The inputs that are differentiated by."""
        return [f"x{i}" for i in self.wanted]


@cache
def _operators() -> dict[str, list[Any]]:
    # Not at the top: it takes ten seconds, which who collects these tests without running them would pay.
    op_db = import_module("torch.testing._internal.common_methods_invocations").op_db
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for op in op_db:
        if op.supports_autograd and torch.float64 in op.dtypes:
            found[op.name].append(op)
    return found


def _samples(name: str) -> list[Sample]:
    found: list[Sample] = []
    for op in _operators()[name]:
        if op.variant_test_name == "subgradients_at_zero":
            continue
        every = list(op.sample_inputs("cpu", torch.float64, requires_grad=True))
        for given in every[:: -(-len(every) // SAMPLES) or 1]:
            flat, spec = pytree.tree_flatten((given.input, given.args, given.kwargs))
            places = [i for i, v in enumerate(flat) if isinstance(v, torch.Tensor)]
            tensors = [flat[i] for i in places]
            if sum(t.numel() for t in tensors) <= ELEMENTS:
                wanted = [i for i, t in enumerate(tensors) if t.requires_grad and t.numel()]
                call = _call(op, flat, spec, places)
                found.append(Sample(call, [t.detach() for t in tensors], wanted, op.supports_gradgrad))
    return found


def _call(op: Any, flat: Sequence[Any], spec: Any, places: Sequence[int]) -> Any:
    def call(*tensors: Any) -> Any:
        values = list(flat)
        for place, value in zip(places, tensors, strict=True):
            values[place] = value
        first, args, kwargs = pytree.tree_unflatten(values, spec)
        return op.op(first, *args, **kwargs)

    return call


def _traced(sample: Sample) -> tuple[Module, list[bool]] | None:
    """The sample as a module, as it is or with nothing written in place; None where an operator of it is not known to
    `aten.py`, or torch cannot trace it."""
    for call in (sample.call, functionalize(sample.call)):
        try:
            return aten.module_of(make_fx(call, decomposition_table=TABLE)(*sample.tensors), sample.tensors)
        except (aten.Unmapped, TesseraError, RuntimeError, IndexError):
            continue
    return None


@dataclass(frozen=True)
class Point:
    """A traced sample where it is differentiated: the module and its inputs, torch's results, and a cotangent for each
    output, zero for those that nothing depends on."""

    module: Module
    sample: Sample
    leaves: Sequence[Any]
    outputs: Mapping[str, Any]
    cotangents: Mapping[str, Array]

    @property
    def inputs(self) -> dict[str, Array]:
        """The sample's tensors as arrays."""
        return {f"x{i}": t.numpy() for i, t in enumerate(self.sample.tensors)}

    def gradients(self, **kwargs: Any) -> tuple[Any, ...]:
        """Torch's, by the tensors that are asked for; None where nothing depends on one."""
        active = {n: r for n, r in self.outputs.items() if r.requires_grad}
        seeds = [torch.from_numpy(np.asarray(self.cotangents[n])) for n in active]
        return torch.autograd.grad(list(active.values()), self.leaves, seeds, allow_unused=True, **kwargs)


def _point(sample: Sample) -> Point | None:
    """None where the sample cannot be traced, or has nothing to differentiate."""
    traced = _traced(sample)
    if traced is None or not sample.wanted:
        return None
    module, there = traced
    tensors = [t.clone().requires_grad_(i in sample.wanted) for i, t in enumerate(sample.tensors)]
    results = [r for r in pytree.tree_flatten(sample.call(*tensors))[0] if isinstance(r, torch.Tensor)]
    outputs = dict(zip(module.output_names["main"], [r for r, t in zip(results, there, strict=True) if t], strict=True))
    single = any(r.dtype != torch.float64 for r in outputs.values() if r.is_floating_point())
    if single or not any(r.requires_grad for r in outputs.values()):
        return None
    floats, rng = [r for r in outputs.values() if r.is_floating_point()], np.random.default_rng(0)
    # A single number is differentiated as it is.
    number = len(floats) == 1 and not floats[0].ndim
    drawn = {
        n: np.asarray(rng.standard_normal(tuple(r.shape)) if not number else 1.0) * r.requires_grad
        for n, r in outputs.items()
    }
    return Point(module, sample, [tensors[i] for i in sample.wanted], outputs, drawn)


def _judge(sample: Sample) -> bool:
    """Whether the sample could be judged; raises where it is wrong."""
    at = _point(sample)
    if at is None:
        return False
    derived = with_grad(at.module, "main", sample.names)
    found = run(derived, "main_grad", {**at.inputs, **_seeds(at, derived)})
    for name, result in at.outputs.items():
        _assert_close(found[name], result.detach().numpy())
    gradients = [found[f"{name}_gradient"] for name in sample.names]
    _assert_all_close(gradients, at.gradients())
    _forward(at, gradients)
    return True


def _seeds(at: Point, derived: Module) -> dict[str, Array]:
    asked = [n for n in derived.input_names["main_grad"] if n not in at.inputs]
    return {n: at.cotangents[n.removesuffix("_cotangent")] for n in asked}


def _forward(at: Point, gradients: list[Array]) -> None:
    """<c, J t> is <Jᵀ c, t>."""
    rng, names = np.random.default_rng(1), at.sample.names
    tangents = {f"{n}_tangent": rng.standard_normal(g.shape) for n, g in zip(names, gradients, strict=True)}
    found = run(with_jvp(at.module, "main", names), "main_jvp", {**at.inputs, **tangents})
    # A row without elements, or of minus infinities that a mask put there: its derivative is anything.
    if any(not np.isfinite(found[n]).all() for n in at.cotangents):
        return
    changes = {n: found[f"{n}_tangent"] for n in at.cotangents if f"{n}_tangent" in found}
    left = sum(float(np.sum(np.multiply(at.cotangents[n], c))) for n, c in changes.items())
    right = sum(float(np.sum(np.multiply(g, t))) for g, t in zip(gradients, tangents.values(), strict=True))
    assert np.isclose(left, right, rtol=1e-7, atol=1e-7, equal_nan=True)


def _judge_twice(sample: Sample) -> bool:
    """The gradient's own derivative along a direction, forward over reverse and reverse over reverse."""
    at = _point(sample)
    if at is None or not all(bool(r.isfinite().all()) for r in at.outputs.values()):
        return False
    try:
        once = at.gradients(create_graph=True)
        rng = np.random.default_rng(2)
        along = [np.asarray(rng.standard_normal(tuple(leaf.shape))) for leaf in at.leaves]
        pairs = [
            (g, torch.from_numpy(v)) for g, v in zip(once, along, strict=True) if g is not None and g.requires_grad
        ]
        total = sum((g * v).sum() for g, v in pairs)
        expected = torch.autograd.grad(total, at.leaves, allow_unused=True) if pairs else [None] * len(along)
    except RuntimeError:  # torch has none: of its own attention
        return False
    names, derived = sample.names, with_grad(at.module, "main", sample.names)
    seeds, directions = _seeds(at, derived), dict(zip(names, along, strict=True))
    forward = with_jvp(derived, "main_grad", names)
    given = forward.input_names["main_grad_jvp"][len(derived.input_names["main_grad"]) :]
    found = run(forward, "main_grad_jvp", {**at.inputs, **seeds, **dict(zip(given, along, strict=True))})
    _assert_all_close([found[f"{name}_gradient_tangent"] for name in names], expected)
    reverse = with_grad(derived, "main_grad", names)
    zeros = {f"{n}_cotangent": np.zeros(c.shape) for n, c in at.cotangents.items()}
    known = {**zeros, **{f"{n}_gradient_cotangent": v for n, v in directions.items()}}
    asked = reverse.input_names["main_grad_grad"][len(derived.input_names["main_grad"]) :]
    found = run(reverse, "main_grad_grad", {**at.inputs, **seeds, **{n: known[n.removesuffix("_2")] for n in asked}})
    made = reverse.output_names["main_grad_grad"][len(derived.output_names["main_grad"]) :]
    _assert_all_close([found[name] for name in made], expected)
    return True


def _assert_all_close(found: Sequence[Array], wanted: Sequence[Any]) -> None:
    for one, other in zip(found, wanted, strict=True):
        _assert_close(one, np.zeros(one.shape) if other is None else other.numpy(force=True))


def _assert_close(found: Array, wanted: Array) -> None:
    finite = np.abs(wanted.astype(np.float64), where=np.isfinite(wanted), out=np.zeros(wanted.shape))
    scale = max(1.0, float(finite.max(initial=0.0)))
    np.testing.assert_allclose(
        found.astype(np.float64), wanted.astype(np.float64), rtol=1e-7, atol=1e-7 * scale, equal_nan=True
    )


@pytest.mark.parametrize("name", AGREED)
def test_gradient_when_torch_gives_the_samples_then_is_torchs(name: str) -> None:
    assert sum(_judge(sample) for sample in _samples(name)) > 0


@pytest.mark.parametrize("name", AGREED)
def test_second_derivative_when_torch_gives_the_samples_then_is_torchs(name: str) -> None:
    """Of operators that torch differentiates twice; where it does not, there is nothing to compare with."""
    samples = [sample for sample in _samples(name) if sample.twice]
    for sample in samples[:: -(-len(samples) // TWICE) or 1]:
        _judge_twice(sample)


def test_operators_when_counted_then_are_hundreds() -> None:
    assert len(AGREED) >= 376
