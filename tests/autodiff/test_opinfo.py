"""Gradients against torch's own, on the sample inputs that torch tests its operators with.

`agreed.txt` lists the operators whose samples are judged: it may only grow. A sample whose program has an operator that
`aten.py` does not know is passed over; of every listed operator at least one is not. Needs torch and, for its test
module, expecttest.
"""

# ruff: noqa: ANN401  torch's samples are anything

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")

from torch._decomp import decomposition_table  # noqa: E402
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
ELEMENTS = 4000
TABLE = {
    op: made
    for op, made in decomposition_table.items()
    if hasattr(op, "_schema") and op._schema.name.split("::")[-1] not in aten.ROWS
}


@dataclass(frozen=True)
class Sample:
    """One call: a function of tensors alone, and which of them are differentiated by."""

    call: Any
    tensors: Sequence[Any]
    wanted: Sequence[int]


@cache
def _operators() -> dict[str, list[Any]]:
    from torch.testing._internal.common_methods_invocations import op_db  # noqa: PLC0415  takes ten seconds to import

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
        for given in list(op.sample_inputs("cpu", torch.float64, requires_grad=True))[:SAMPLES]:
            flat, spec = pytree.tree_flatten((given.input, given.args, given.kwargs))
            places = [i for i, v in enumerate(flat) if isinstance(v, torch.Tensor)]
            tensors = [flat[i] for i in places]
            if sum(t.numel() for t in tensors) <= ELEMENTS:
                wanted = [i for i, t in enumerate(tensors) if t.requires_grad and t.numel()]
                found.append(Sample(_call(op, flat, spec, places), [t.detach() for t in tensors], wanted))
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
    """The sample as a module; None where an operator of it is not known to `aten.py`, or torch cannot trace it."""
    try:
        return aten.module_of(make_fx(sample.call, decomposition_table=TABLE)(*sample.tensors), sample.tensors)
    except (aten.Unmapped, TesseraError, RuntimeError, IndexError):
        return None


def _judge(sample: Sample) -> bool:
    """Whether the sample could be judged; raises where it is wrong."""
    traced = _traced(sample)
    if traced is None:
        return False
    module, there = traced
    tensors = [t.clone().requires_grad_(i in sample.wanted) for i, t in enumerate(sample.tensors)]
    results = [r for r in pytree.tree_flatten(sample.call(*tensors))[0] if isinstance(r, torch.Tensor)]
    outputs = dict(zip(module.output_names["main"], [r for r, t in zip(results, there, strict=True) if t], strict=True))
    inputs = {f"x{i}": t.numpy() for i, t in enumerate(sample.tensors)}
    active = {n: r for n, r in outputs.items() if r.requires_grad}
    if (
        not active
        or not sample.wanted
        or any(r.dtype != torch.float64 for r in outputs.values() if r.is_floating_point())
    ):
        return False
    rng = np.random.default_rng(0)
    cotangents = {
        n: rng.standard_normal(tuple(r.shape)) if n in active else np.zeros(tuple(r.shape)) for n, r in outputs.items()
    }
    gradients = _gradients(module, sample, inputs, outputs, cotangents)
    expected = torch.autograd.grad(
        list(active.values()),
        [tensors[i] for i in sample.wanted],
        [torch.from_numpy(np.asarray(cotangents[n])) for n in active],
        allow_unused=True,
    )
    for found, wanted in zip(gradients, expected, strict=True):
        _assert_close(found, np.zeros(found.shape) if wanted is None else wanted.numpy(force=True))
    _forward(module, sample, inputs, cotangents, gradients)
    return True


def _gradients(
    module: Module, sample: Sample, inputs: dict[str, Array], outputs: dict[str, Any], cotangents: Mapping[str, Array]
) -> list[Array]:
    derived = with_grad(module, "main", [f"x{i}" for i in sample.wanted])
    asked = [n for n in derived.input_names["main_grad"] if n not in inputs]
    given = {n: cotangents[n.removesuffix("_cotangent")] for n in asked}
    found = run(derived, "main_grad", {**inputs, **given})
    for name, result in outputs.items():
        _assert_close(found[name], result.detach().numpy())
    # A single number is differentiated as it is.
    scale = np.ones(()) if asked else next(c for c in cotangents.values() if np.any(c))
    return [np.asarray(np.multiply(found[f"x{i}_gradient"], scale)) for i in sample.wanted]


def _forward(
    module: Module, sample: Sample, inputs: dict[str, Array], cotangents: Mapping[str, Array], gradients: list[Array]
) -> None:
    """<c, J t> is <Jᵀ c, t>."""
    rng = np.random.default_rng(1)
    tangents = {f"x{i}_tangent": rng.standard_normal(g.shape) for i, g in zip(sample.wanted, gradients, strict=True)}
    found = run(with_jvp(module, "main", [f"x{i}" for i in sample.wanted]), "main_jvp", {**inputs, **tangents})
    if any(np.isnan(found[n]).any() for n in cotangents):  # a row without elements: its derivative is anything
        return
    changes = {n: found[f"{n}_tangent"] for n in cotangents if f"{n}_tangent" in found}
    left = sum(float(np.sum(np.multiply(cotangents[n], c))) for n, c in changes.items())
    right = sum(float(np.sum(np.multiply(g, t))) for g, t in zip(gradients, tangents.values(), strict=True))
    assert np.isclose(left, right, rtol=1e-7, atol=1e-7, equal_nan=True)


def _assert_close(found: Array, wanted: Array) -> None:
    finite = np.abs(wanted.astype(np.float64), where=np.isfinite(wanted), out=np.zeros(wanted.shape))
    scale = max(1.0, float(finite.max(initial=0.0)))
    np.testing.assert_allclose(
        found.astype(np.float64), wanted.astype(np.float64), rtol=1e-7, atol=1e-7 * scale, equal_nan=True
    )


@pytest.mark.parametrize("name", AGREED)
def test_gradient_when_torch_gives_the_samples_then_is_torchs(name: str) -> None:
    assert sum(_judge(sample) for sample in _samples(name)) > 0


def test_operators_when_counted_then_are_hundreds() -> None:
    assert len(AGREED) >= 290
