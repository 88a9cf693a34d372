"""Contractions by letters: numpy's notation as diagonals, sums, transposes and matrix products.

Takes a formula and tensors; gives one tensor. Invariant: every two operands, from the left, meet in one matrix product,
of which the axes that both have and that are needed later are the batch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tessera.errors import LanguageError
from tessera.model.site import here
from tessera.model.tensor import Operand, Tensor, Value, described, emit, product
from tessera.op.creation import as_tensor
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import I64
from tessera_build.ir.graph.ops.shapes import count

Label = str | int  # a letter; or an axis behind "...", from the last on: -1, -2
_TERM = re.compile(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*")


@dataclass(frozen=True, slots=True)
class _Term:
    """A tensor with a label for each of its axes."""

    labels: tuple[Label, ...]
    value: Value


def einsum(formula: str, *operands: Operand) -> Tensor:
    """A contraction by letters, such as "bhqd,bhkd->bhqk": products, summed over the letters that the result has not.

    In numpy's notation: any number of operands, multiplied from the left; "..." for axes that broadcast; a letter twice
    in one operand is its diagonal; without "->" the result has the letters that occur once, by alphabet, behind "...".
    An axis of extent 1 broadcasts.
    """
    terms, result = _read(formula, [as_tensor(operand) for operand in operands])
    extents = _extents(formula, terms)
    first, *rest = (_fitted(_without_repeats(term), extents) for term in terms)
    for index, term in enumerate(rest):
        needed = {*result, *(label for later in rest[index + 1 :] for label in later.labels)}
        first = _contracted(first, term, needed)
    return _arranged(first, result)


def _read(formula: object, operands: Sequence[Value]) -> tuple[list[_Term], tuple[Label, ...]]:
    """The operands with their labels, and the labels of the result."""
    text = "".join(formula.split()) if isinstance(formula, str) else "?"
    left, arrow, right = text.partition("->")
    words = left.split(",")
    if not all(_TERM.fullmatch(word) for word in (*words, right)):
        raise _misunderstood(formula, operands, 'letters, "...", "," and "->" alone: "ij,jk->ik"')
    if len(words) != len(operands):
        raise _misunderstood(formula, operands, f"{len(words)} operands, one for each term")
    terms: list[_Term] = []
    for word, operand in zip(words, operands, strict=True):
        labels = _labels(word, operand.ndim)
        if labels is None:
            raise _misunderstood(formula, operands, f"as many letters in {word!r} as {described(operand)} has axes")
        terms.append(_Term(labels, operand))
    counts = Counter(label for term in terms for label in term.labels)
    covered = sorted(label for label in counts if isinstance(label, int))
    once = sorted(label for label, times in counts.items() if isinstance(label, str) and times == 1)
    if not arrow:
        return terms, (*covered, *once)
    letters = len(right.replace("...", ""))
    result = _labels(right, letters + len(covered)) if "..." in right or not covered else None
    if result is None:
        raise _misunderstood(formula, operands, 'a result with "...", as its operands have')
    if len(set(result)) < len(result) or not set(result) <= counts.keys():
        raise _misunderstood(formula, operands, "each letter of the result once, and in an operand")
    return terms, result


def _labels(word: str, rank: int) -> tuple[Label, ...] | None:
    """The labels of a term; None where it does not fit a tensor of this rank."""
    before, dots, after = word.partition("...")
    covered = rank - len(before) - len(after)
    return None if covered < 0 or (covered and not dots) else (*before, *range(-covered, 0), *after)


def _misunderstood(formula: object, operands: Sequence[Value], expected: str) -> LanguageError:
    return LanguageError(
        "BAD_ARGUMENT",
        "einsum does not understand its formula",
        site=here(),
        expected=expected,
        found=f"{formula!r} on {', '.join(described(x) for x in operands) or 'nothing'}",
    )


def _extents(formula: str, terms: Sequence[_Term]) -> dict[Label, Extent]:
    """The extent of every label over all operands; 1 broadcasts, but not within one operand."""
    found: dict[Label, Extent] = {}
    for term in terms:
        own: dict[Label, Extent] = {}
        for label, extent in zip(term.labels, term.value.shape, strict=True):
            known = own.setdefault(label, extent)
            other = found.get(label, 1)
            if known != extent or (extent not in (1, other) and other != 1):
                what = f"letter {label}" if isinstance(label, str) else f"axis {label} of ..."
                raise LanguageError(
                    "TYPE_MISMATCH",
                    f"{what} of einsum has two extents",
                    site=here(),
                    expected=f"{known if known != extent else other}",
                    found=f"{extent} in {formula!r} on {', '.join(described(t.value) for t in terms)}",
                )
            found[label] = other if extent == 1 else extent
    return found


def _without_repeats(term: _Term) -> _Term:
    """A letter that stands twice in one operand means its diagonal: with both axes as one, every (n + 1)-th element."""
    for label, times in Counter(term.labels).items():
        for _ in range(times - 1):
            labels, x = term.labels, term.value
            first = labels.index(label)
            second = labels.index(label, first + 1)
            rest = [i for i in range(len(labels)) if i not in (first, second)]
            extent, kept = x.shape[first], tuple(x.shape[i] for i in rest)
            moved = emit("transpose", x, perm=(*rest, first, second))
            flat = emit("reshape", moved, shape=(*kept, count((extent, extent))))
            places = emit("mul", emit("iota", shape=(extent,), axis=0, dtype=I64), extent + 1)
            taken = emit("gather", flat, places, axis=len(rest))
            term = _Term((*(labels[i] for i in rest), label), taken)
    return term


def _fitted(term: _Term, extents: Mapping[Label, Extent]) -> _Term:
    """The operand without the axes of extent 1 that are longer elsewhere: it is the same along them."""
    pairs = list(zip(term.labels, term.value.shape, strict=True))
    kept = [(label, extent) for label, extent in pairs if extent != 1 or extents[label] == 1]
    if len(kept) == len(pairs):
        return term
    shape = tuple(extent for _, extent in kept)
    return _Term(tuple(label for label, _ in kept), emit("reshape", term.value, shape=shape))


def _arranged(term: _Term, labels: Sequence[Label]) -> Tensor:
    """Axes that are not asked for are summed, the others are put in this order."""
    gone = tuple(i for i, label in enumerate(term.labels) if label not in labels)
    kept = [label for label in term.labels if label in labels]
    summed = emit("reduce", term.value, kind="sum", axes=gone, keepdims=False) if gone else term.value
    return emit("transpose", summed, perm=tuple(kept.index(label) for label in labels))


def _contracted(a: _Term, b: _Term, needed: Collection[Label]) -> _Term:
    """One matrix product: shared labels that are needed are batches, shared ones that are not are summed."""
    batch = [c for c in a.labels if c in b.labels and c in needed]
    inner = [c for c in a.labels if c in b.labels and c not in needed]
    rows = [c for c in a.labels if c in needed and c not in b.labels]
    columns = [c for c in b.labels if c in needed and c not in a.labels]
    first = _arranged(a, (*batch, *rows, *inner))
    second = _arranged(b, (*batch, *inner, *columns))
    extents = dict(zip(a.labels, a.value.shape, strict=True)) | dict(zip(b.labels, b.value.shape, strict=True))
    groups = [count(tuple(extents[c] for c in group)) for group in (batch, rows, inner, columns)]
    flat = product(
        emit("reshape", first, shape=(groups[0], groups[1], groups[2])),
        emit("reshape", second, shape=(groups[0], groups[2], groups[3])),
    )
    order = (*batch, *rows, *columns)
    return _Term(order, emit("reshape", flat, shape=tuple(extents[c] for c in order)))
