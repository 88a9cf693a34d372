"""Einsum: any equation, as transposes, sums and matrix products.

Takes operands and an equation in numpy's notation; gives one tensor. Invariant: every contraction of two operands is
one matrix product with the axes that both keep as its batch, so it runs as fast as a MatMul that says the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.contraction import matrix_product
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.indexing import counting
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.graph.ops.shapes import count

_TERM = re.compile(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*")


@dataclass(frozen=True, slots=True)
class Term:
    """A tensor with the label of each of its axes; axes of an ellipsis are labelled "-1", "-2", ... from its end."""

    tensor: Tensor
    labels: tuple[str, ...]

    def extent(self, label: str) -> Extent:
        """The extent under a label; 1 for a label that the tensor does not have."""
        return self.tensor.shape[self.labels.index(label)] if label in self.labels else 1


def _einsum(c: Context, n: Call) -> Tensor:
    operands = n.all_inputs()
    equation = n.text("equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    texts = left.split(",")
    if len(texts) != len(operands) or not all(_TERM.fullmatch(t) for t in (*texts, right)):
        raise ill_formed("Einsum's equation does not fit its operands", found=f"{equation}, {len(operands)} operands")
    labels = [_labels(text, t.rank) for text, t in zip(texts, operands, strict=True)]
    widest = max((sum(not i.isalpha() for i in row) for row in labels), default=0)
    given = _labels(right, len(right.replace("...", "")) + ("..." in right) * widest) if arrow else _implied(labels)
    unknown = set(given) - {label for row in labels for label in row}
    if unknown or len(set(given)) < len(given):
        raise ill_formed("Einsum's result has labels that no operand has, or twice", found=equation)
    terms = [_without_repeats(c, Term(t, row)) for t, row in zip(operands, labels, strict=True)]
    extents = _extents(c, terms)
    return _ordered(c, _combined(c, [_fitted(c, t, extents) for t in terms], given), given)


def _labels(text: str, rank: int) -> tuple[str, ...]:
    before, dots, after = text.partition("...")
    covered = rank - len(before) - len(after)
    if covered < 0 or (not dots and covered):
        raise ill_formed("Einsum's labels do not fit the rank of an operand", expected=f"{rank} axes", found=text)
    return (*before, *(f"{i}" for i in range(-covered, 0)), *after)


def _implied(labels: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The result's labels when none are stated: the ellipsis, then every letter that occurs once, by alphabet."""
    counts = Counter(label for row in labels for label in row)
    dots = sorted((label for label in counts if not label.isalpha()), key=int)
    return (*dots, *sorted(label for label, times in counts.items() if label.isalpha() and times == 1))


def _without_repeats(c: Context, term: Term) -> Term:
    """A label that stands twice in one operand means its diagonal: everything else is zero in a sum over one axis."""
    for label, times in Counter(term.labels).items():
        for _ in range(times - 1):
            first = term.labels.index(label)
            second = term.labels.index(label, first + 1)
            x = term.tensor
            extent = c.unify(x.shape[first], x.shape[second], f"Einsum's label {label} has two extents")
            x = c.retyped(x, [extent if i in (first, second) else e for i, e in enumerate(x.shape)])
            same = c.op("eq", *(counting(c, x.rank, axis, extent) for axis in (first, second)))
            diagonal = c.reduce("sum", c.op("select", same, x, c.scalar(0, x.dtype)), (second,), keepdims=False)
            term = Term(diagonal, (*term.labels[:second], *term.labels[second + 1 :]))
    return term


def _extents(c: Context, terms: Sequence[Term]) -> dict[str, Extent]:
    """The extent of every label over all operands; 1 broadcasts."""
    found: dict[str, Extent] = {}
    for term in terms:
        for label, extent in zip(term.labels, term.tensor.shape, strict=True):
            known = found.get(label, 1)
            if known == 1 or extent == 1:
                found[label] = extent if known == 1 else known
            else:
                found[label] = c.unify(known, extent, f"Einsum's label {label} has two extents")
    return found


def _fitted(c: Context, term: Term, extents: Mapping[str, Extent]) -> Term:
    """The operand under the extents that all operands agree on; its own extents of 1 stay."""
    shape = [1 if e == 1 else extents[label] for label, e in zip(term.labels, term.tensor.shape, strict=True)]
    return Term(c.retyped(term.tensor, shape), term.labels)


def _combined(c: Context, terms: Sequence[Term], wanted: Sequence[str]) -> Term:
    """The operands multiplied from left to right, each label summed over as soon as nothing else needs it."""
    total = _summed(c, terms[0], {*wanted, *(label for t in terms[1:] for label in t.labels)})
    for index, term in enumerate(terms[1:], 1):
        later = {*wanted, *(label for t in terms[index + 1 :] for label in t.labels)}
        total = _product(c, total, _summed(c, term, later | set(total.labels)), later)
    return total


def _summed(c: Context, term: Term, needed: set[str]) -> Term:
    axes = [i for i, label in enumerate(term.labels) if label not in needed]
    return Term(c.reduce("sum", term.tensor, axes, keepdims=False), tuple(i for i in term.labels if i in needed))


def _product(c: Context, a: Term, b: Term, later: set[str]) -> Term:
    # A label of extent 1 in one operand only broadcasts: summing the other over it first is the same sum.
    lone = {i for i in a.labels if i in b.labels and i not in later and (a.extent(i) == 1) != (b.extent(i) == 1)}
    a, b = (_summed_where_long(c, t, lone) for t in (a, b))
    both = [i for i in a.labels if i in b.labels]
    batch, inner = [i for i in both if i in later], [i for i in both if i not in later]
    rows = [i for i in a.labels if i not in both]
    columns = [i for i in b.labels if i not in both]
    if not inner or not (rows or columns):
        labels = (*batch, *rows, *columns, *inner)
        result = c.op("mul", *(_spread(c, t, labels) for t in (a, b)))
        return _summed(c, Term(result, labels), later)
    left = _matrix(c, a, (batch, rows, inner))
    right = _matrix(c, b, (batch, inner, columns))
    result = matrix_product(c, left, right)
    shape = (*result.shape[:-2], *(a.extent(i) for i in rows), *(b.extent(i) for i in columns))
    return Term(c.reshape(result, shape), (*batch, *rows, *columns))


def _summed_where_long(c: Context, term: Term, labels: set[str]) -> Term:
    axes = [i for i, label in enumerate(term.labels) if label in labels]
    return Term(c.reduce("sum", term.tensor, axes, keepdims=False), tuple(i for i in term.labels if i not in labels))


def _matrix(c: Context, term: Term, groups: tuple[list[str], list[str], list[str]]) -> Tensor:
    """The operand as a batch of matrices, whose rows and columns are the second and the third group of labels."""
    batch, rows, columns = groups
    moved = c.transpose(term.tensor, [term.labels.index(i) for i in (*batch, *rows, *columns)])
    first, second = ([term.extent(i) for i in group] for group in (rows, columns))
    return c.reshape(moved, (*moved.shape[: len(batch)], count(first), count(second)))


def _spread(c: Context, term: Term, labels: Sequence[str]) -> Tensor:
    """The operand with its axes in the order of `labels`, and an axis of extent 1 for each that it lacks."""
    moved = c.transpose(term.tensor, [term.labels.index(i) for i in labels if i in term.labels])
    return c.reshape(moved, [term.extent(i) for i in labels])


def _ordered(c: Context, term: Term, wanted: Sequence[str]) -> Tensor:
    return c.transpose(term.tensor, [term.labels.index(label) for label in wanted])


EINSUM_OPERATORS: Mapping[str, Translator] = {"Einsum": _einsum}
