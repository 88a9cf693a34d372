"""Functions traced by themselves inside a trace: what transforms work on.

Takes a function and its arguments; gives a Graph IR function, the outer values of its arguments and the nesting of its
results. Invariant: what the function reads of the trace around it became an argument too, so that it can be
differentiated, batched or written again anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tessera.errors import LanguageError
from tessera.model.explain import value_text
from tessera.model.parameter import Parameter
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, described, trace_of
from tessera.model.trace import Trace, current, tracing
from tessera.model.tree import leaves, rebuild
from tessera_build.ir.core.node import Function, Region
from tessera_build.ir.core.structure import captured


@dataclass(frozen=True, slots=True)
class Inner:
    """One traced function: `inputs` are the arguments that were given, `primals` the outer values of all.

    `arguments` are those of the call, in their nesting around the outer tensors, with None for whatever is no tensor.
    """

    outer: Trace
    function: Function
    inputs: tuple[int, ...]
    primals: tuple[int, ...]
    arguments: list[object]
    result: object

    @property
    def moving(self) -> list[object]:
        """The arguments that hold tensors."""
        return [argument for argument in self.arguments if argument is not None]

    def results(self, values: Sequence[int]) -> list[Tensor]:
        """Values of the outer trace as the results, which are under the policies that they have inside."""
        found = [leaf for _, leaf in leaves(self.result) if isinstance(leaf, Value)]
        pairs = zip(values, found, strict=True)
        return [Tensor(self.outer, self.outer.note(value, here(), leaf.policy)) for value, leaf in pairs]

    def rebuilt(self, values: Sequence[int]) -> object:
        """Values of the outer trace in the nesting of the result."""
        return rebuild(self.result, self.results(values))

    def primal(self, value: int) -> int:
        """The outer value of one argument."""
        return self.primals[self.function.args.index(value)]

    def expect_read(self, places: Sequence[int], name: str) -> None:
        """Refuse derivatives by an argument that is never read, of a function that reads its tensor from around it.

        They would be zeros: `graph.grad(lambda weights: loss(model(x)))(weights)`, where the model reads its own ones.
        """
        read = captured((Region((), self.function.nodes, self.function.results),))
        around = {self.primal(value) for value in read if value not in self.inputs}
        missed = [self.primal(place) for place in places if place not in read and self.primal(place) in around]
        if missed:
            raise LanguageError(
                "NOT_DIFFERENTIABLE",
                f"{name} is asked by an argument that the function never reads: it reads the same tensor around it",
                site=here(),
                expected="a function that computes with its argument",
                found=value_text(self.outer, missed[0]),
                hint="graph.grad(f, wrt=[W]) gives gradients by parameters that a function reads itself",
            )


def traced(
    function: Callable[..., object],
    arguments: Sequence[object],
    named: Mapping[str, object] | None = None,
    parameters: Sequence[Parameter] = (),
) -> Inner:
    """Trace a function: tensors among the arguments become its inputs, and so do the parameters.

    Every other argument, and those that are `named`, is passed on as it is: a tensor among these is read from the trace
    around the function.
    """
    outer = trace_of([leaf for _, leaf in leaves(arguments)])
    inner = Trace(getattr(function, "__name__", "function"), outer=outer)
    given: dict[int, int] = {}

    def entered(value: int) -> int:
        inside = inner.builder.input(f"argument{len(given)}", outer.builder.type(value))
        given[inside] = value
        return inner.note(inside, outer.sites.get(value), outer.policies.get(value), outer.labels.get(value, ""))

    whole, found = list(arguments), [leaf for _, leaf in leaves(arguments)]
    tensors = [Tensor(outer, leaf.value_in(outer)) if isinstance(leaf, Value) else None for leaf in found]
    taken = [
        leaf if tensor is None else Tensor(inner, entered(tensor.value))
        for leaf, tensor in zip(found, tensors, strict=True)
    ]
    for parameter in parameters:
        inner.bind(parameter, entered(outer.weight(parameter)))
    inputs = tuple(given)
    with tracing(inner):
        result = function(*as_arguments(rebuild(whole, taken)), **(named or {}))
        values = [value_of(inner, leaf) for _, leaf in leaves(result)]
        for index, value in enumerate(values):
            inner.builder.output(f"result{index}", value)
    outer.builder.dims.update(inner.builder.dims)
    given |= {c.inside: c.value if c.trace is outer else outer.capture(c.trace, c.value) for c in inner.captured}
    made = inner.builder.function()
    around = [argument if leaves(argument) else None for argument in as_arguments(rebuild(whole, tensors))]
    return Inner(outer, made, inputs, tuple(given[arg] for arg in made.args), around, result)


def expect_trace(name: str, arguments: Sequence[object]) -> None:
    """Refuse arguments outside of a trace: what `name` gives of a function is a function of tensors."""
    if current() is None and not any(isinstance(leaf, Tensor) for _, leaf in leaves(arguments)):
        raise LanguageError(
            "NO_TRACE",
            f"what {name} gives is called outside of a model",
            site=here(),
            expected="a call inside a function under @graph.module or @graph.jit, or a graph.Module's forward",
            hint="graph.jit around it makes a function of arrays: graph.jit(graph.grad(f))(array)",
        )


def as_arguments(value: object) -> list[object]:
    """A rebuilt list of arguments."""
    assert isinstance(value, list)
    return list(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def value_of(trace: Trace, leaf: object) -> int:
    """A result as a value of the trace; raises for anything that is no tensor."""
    if not isinstance(leaf, Value):
        raise LanguageError(
            "NOT_A_TENSOR",
            "a function that is transformed returns something that is no tensor",
            site=here(),
            expected="tensors in tuples, lists and dicts",
            found=repr(leaf)[:200],
        )
    return leaf.value_in(trace)


def scalar_loss(loss: object, what: str) -> Value:
    """A loss as what can be differentiated backwards: one floating-point number."""
    if not isinstance(loss, Value) or loss.shape != () or not loss.dtype.is_float:
        raise LanguageError(
            "LOSS_NOT_SCALAR",
            f"{what} takes one number",
            site=here(),
            expected="a floating-point tensor of shape []",
            found=described(loss) if isinstance(loss, Value) else repr(loss)[:200],
            hint="op.reduce_sum or op.reduce_mean make one number of a tensor",
        )
    return loss
