"""Where transforms write, and whose place their errors and nodes have.

Takes traces; gives contexts and values of them. Invariant: an error of a transform is shown where the operator stands
that it is about, and says which call of the author's came to it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from bundle_format.errors import TesseraError
from tessera.errors import LanguageError
from tessera.model.site import Site, here
from tessera.model.tensor import Tensor
from tessera.model.trace import Trace
from tessera_build.ir.core.structure import captured
from tessera_build.ir.graph.autodiff.replay import Replay, live_part
from tessera_build.ir.graph.autodiff.transform import Transposer


@contextmanager
def author_place(trace: Trace, name: str) -> Generator[None]:
    """What the call `name` makes carries the author's place where it has none of its own.

    An error is one of the operator's place in the author's files, or of the call where that is no place in them.
    """
    site = here()
    try:
        with trace.at(site):
            yield
    except LanguageError:
        raise
    except TesseraError as error:
        raise placed(error, trace, name, site) from error


def placed(error: TesseraError, trace: Trace, name: str, site: Site | None) -> LanguageError:
    """The error of an operator at its place, with the call `name` at `site` that came to it."""
    place = trace.places.get(error.where or "")
    message = error.message
    if place is None and error.where is not None and error.where != str(site):
        message += f" (the operator at {error.where})"
    elif place is not None and place != site:
        message += f" ({name} at {site} asks for it)" if site else f" ({name} asks for it)"
    return LanguageError(
        error.code, message, site=place or site, expected=error.expected, found=error.found, hint=error.hint
    )


def transposed_inside(transposer: Transposer, trace: Trace, to: Trace, seeds: Sequence[int]) -> list[int | None]:
    """Gradients in a trace inside of the one that a function was linearised in, which it reads values of."""
    with trace.builder.region([to.builder.type(seed) for seed in seeds]) as block:
        found = transposer(block.args)
        results = [value for value in found if value is not None]
    region = live_part(block.region, results)
    values = dict(zip(region.args, seeds, strict=True))
    values |= {v: _read(trace, v, to) for v in captured((region,))}
    again = Replay(to.builder, values, trace.builder.type, trace.builder.span_of)
    again.nodes(region.nodes)
    return [None if value is None else again.values[value] for value in found]


def _read(trace: Trace, value: int, to: Trace) -> int:
    """A value of a trace around another one, as that one reads it; constants stay constants."""
    node = trace.builder.producer(value)
    if node is not None and node.op == "constant":
        return to.builder.pooled(str(node.attributes["digest"]))
    return Tensor(trace, value).value_in(to)
