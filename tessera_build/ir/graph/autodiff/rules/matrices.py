"""Derivatives of what is solved by elimination, and of attention.

Takes sites; gives their rows of the table. Invariant: attention's rules never hold more than the scores of one pass;
the derivative of a solution is a solution with the same matrix.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.ir.core.types import I64
from tessera_build.ir.graph.autodiff.derivative import Derivative, NotDifferentiable, Site, first
from tessera_build.ir.graph.autodiff.emit import Values
from tessera_build.ir.graph.ops.op import number_of


def _solve_jvp(site: Site, tangents: Values) -> Values:
    """a dx = d right - da x."""
    e, (da, dright) = site.emit, tangents
    change = None if da is None else e.op("matmul", da, site.outputs[1])
    if change is None:
        assert dright is not None
        right = dright
    else:
        right = e.op("neg", change) if dright is None else e.op("sub", dright, change)
    return [None, e.nodes("solve", site.inputs[0], right)[1]]


def _solve(site: Site, cotangents: Values) -> Values:
    e, c = site.emit, cotangents[1]
    if c is None:
        return [None, None]
    return [None, e.nodes("solve", e.transpose(site.inputs[0], (0, 2, 1)), c)[1]]


def _determinant_jvp(site: Site, tangents: Values) -> Values:
    """det(a) times the trace of a⁻¹ da."""
    e, a = site.emit, site.inputs[0]
    batch, size, _ = site.type(0).shape
    solved = e.nodes("solve", a, first(tangents))[1]
    places = [e.op("iota", shape=(batch, size, size), axis=axis, dtype=I64) for axis in (1, 2)]
    trace = e.sum(e.where(e.op("eq", *places), solved), (1, 2))
    return [None, e.op("mul", trace, site.outputs[1])]


def _probabilities(site: Site) -> tuple[int, int]:
    """Queries [B, K, G M, D] side by side with their keys, and the weights [B, K, G M, N] of the keys."""
    e, (q, k, *mask) = site.emit, (*site.inputs[:2], *site.inputs[3:])
    batch, heads, rows, _ = e.shape(q)
    own = _group(site, q)
    scores = e.scaled(e.op("matmul", own, k, transpose_b=True), number_of(site.attributes, "scale"))
    apart = e.reshape(scores, (batch, heads, rows, e.shape(k)[2]))
    shifted = e.op("add", apart, mask[0]) if mask else apart
    return own, e.op("softmax", shifted, axis=3)


def _size(site: Site) -> int:
    heads, groups = site.type(0).shape[1], site.type(1).shape[1]
    return heads // groups if isinstance(heads, int) and isinstance(groups, int) else 1


def _group(site: Site, value: int) -> int:
    """[B, H, M, X] with the heads that share keys below each other [B, K, H / K * M, X]."""
    e, groups, size = site.emit, site.type(1).shape[1], _size(site)
    batch, _, rows, width = e.shape(value)
    return e.reshape(value, (batch, groups, rows * size, width))


def _apart(site: Site, value: int) -> int:
    """The inverse of `_group`."""
    e, (batch, heads, rows, _) = site.emit, site.type(0).shape
    return e.reshape(value, (batch, heads, rows, e.shape(value)[-1]))


def _attention_jvp(site: Site, tangents: Values) -> Values:
    e, (dq, dk, dv), scale = site.emit, tangents[:3], number_of(site.attributes, "scale")
    own, weights = _probabilities(site)
    k, v, y = site.inputs[1], site.inputs[2], site.outputs[0]
    terms: list[int] = []
    if dq is not None:
        terms.append(_apart(site, e.scaled(e.op("matmul", _group(site, dq), k, transpose_b=True), scale)))
    if dk is not None:
        terms.append(_apart(site, e.scaled(e.op("matmul", own, dk, transpose_b=True), scale)))
    if len(tangents) == 4 and tangents[3] is not None:
        terms.append(e.broadcast(tangents[3], e.shape(weights)))
    found: list[int] = []
    if terms:
        change = e.op("mul", weights, e.total(terms))
        passed = _apart(site, e.op("matmul", _group(site, change), v))
        found.append(e.op("sub", passed, e.op("mul", e.sum(change, (3,), keepdims=True), y)))
    if dv is not None:
        found.append(_apart(site, e.op("matmul", _group(site, weights), dv)))
    return [e.total(found)]


def _attention_vjp(site: Site, cotangents: Values) -> Values:
    e, c, scale = site.emit, first(cotangents), number_of(site.attributes, "scale")
    own, weights = _probabilities(site)
    k, v, y = site.inputs[1], site.inputs[2], site.outputs[0]
    grouped, back = _group(site, weights), _group(site, c)
    dv = e.op("matmul", grouped, back, transpose_a=True)
    dweights = _apart(site, e.op("matmul", back, v, transpose_b=True))
    mean = e.sum(e.op("mul", c, y), (3,), keepdims=True)
    dscores = e.op("mul", weights, e.op("sub", dweights, mean))
    scaled = _group(site, e.scaled(dscores, scale))
    dq = _apart(site, e.op("matmul", scaled, k))
    dk = e.op("matmul", scaled, own, transpose_a=True)
    masks = [e.unbroadcast(dscores, site.type(3).shape)] if len(site.inputs) == 4 else []
    return [dq, dk, dv, *masks]


MATRICES: Mapping[str, Derivative | NotDifferentiable] = {
    "solve": Derivative(_solve_jvp, _solve),
    "determinant": Derivative(_determinant_jvp),
    "attention": Derivative(_attention_jvp, vjp=_attention_vjp),
}
