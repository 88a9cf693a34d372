"""Wrong arguments, one at a time, for every parameter of every public function of `op`, `op.random` and `op.init`.

What comes is a result or the language's own error, never an exception from inside of the language.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pytest

from bundle_format.errors import TesseraError
from tessera import KVCache, boolean, f32, f64, graph, i64, op, u64
from tessera.model.annotation import TensorSpec
from tessera.model.numeric import Numeric
from tessera.model.tensor import Tensor
from tessera.model.trace import Trace, tracing
from tessera_build.ir.core.dims import Extent, symbol

N = symbol("N")
INPUTS: dict[str, tuple[tuple[Extent, ...], Numeric]] = {
    "x": ((3, 4), f32),
    "y": ((N, 4), f32),
    "v": ((4,), f32),
    "s": ((), f32),
    "i": ((3,), i64),
    "j": ((3, 4), i64),
    "mask": ((3, 4), boolean),
    "choice": ((), boolean),
    "square": ((4, 4), f32),
    "matrices": ((1, 4, 4), f32),
    "image": ((2, 4, 8, 8), f32),
    "filters": ((6, 4, 3, 3), f32),
    "heads": ((1, 2, 3, 4), f32),
    "sequence": ((1, 3, 12), f32),
    "keys": ((1, 2, 8, 4), f32),
    "length": ((1,), i64),
    "key": ((), u64),
}
# What a parameter gets where nothing is said of its function, and what it gets in these.
USUAL = {"x": "x", "a": "x", "b": "x", "y": "x", "axis": "0", "dtype": "f32", "shape": "(4, 2)", "like": "v"} | {
    "logits": "x",
    "truth": "i",
    "branch": "x",
    "count": "3",
    "parent": "key",
    "value": "2.0",
    "seed": "1",
}
SPECIAL = {
    "op.attention": "q=heads, k=heads, v=heads",
    "op.avg_pool": "x=image, window=2",
    "op.batchnorm": "x=x, scale=v, bias=v, mean=v, variance=v",
    "op.broadcast_to": "x=v, shape=(3, 4)",
    "op.concat": "tensors=[x, x]",
    "op.cond": "choice, lambda *_: x, lambda *_: x + 1, x",
    "op.constant": "array=[1.0, 2.0]",
    "op.conv": "x=image, weight=filters",
    "op.conv_transpose": "x=image, weight=op.ones((4, 3, 2, 2))",
    "op.cumprod": "x=x",
    "op.determinant": "a=matrices",
    "op.dimension": "extent=y.shape[0]",
    "op.dot": "a=v, b=v",
    "op.einsum": "'ij,jk->ik', x, square",
    "op.fixed_point": "function=lambda z: z, initial=x",
    "op.flash_attention": "q=heads, cache=cache",
    "op.gather": "data=x, indices=i",
    "op.global_avg_pool": "x=image",
    "op.groupnorm": "x=image, groups=2",
    "op.inverse": "a=matrices",
    "op.linear": "x=x, weight=square",
    "op.linear_solve": "apply=lambda z: z, right=x",
    "op.matmul": "a=x, b=square",
    "op.max_pool": "x=image, window=2",
    "op.merge_heads": "x=heads",
    "op.mse": "prediction=x, truth=v",
    "op.one_hot": "indices=i, depth=4",
    "op.outer": "a=v, b=v",
    "op.pad": "x=x, low=(0, 1), high=(1, 0)",
    "op.scan": "body=lambda c, r: (c, r), initial=v, xs=x",
    "op.scatter": "data=x, indices=i, updates=x",
    "op.scatter_elements": "data=x, indices=j, updates=x",
    "op.solve": "residual=lambda z: z, initial=x",
    "op.solve_linear": "a=matrices, right=matrices",
    "op.split": "x=x, parts=2",
    "op.split_heads": "x=sequence, heads=2",
    "op.split_qkv": "qkv=sequence, heads=2",
    "op.squeeze": "x=length",
    "op.stack": "tensors=[x, x]",
    "op.take_along": "data=x, indices=j",
    "op.tensor": "shape=(2, 3), name='w'",
    "op.top_k": "x=x, k=2",
    "op.where": "condition=mask, a=x, b=0.0",
    "op.while_": "condition=lambda z: op.reduce_sum(z) < 3.0, body=lambda z: z + 1.0, initial=x",
    "op.with_policy": "x=x, numeric=f32",
    "op.clip": "x=x, low=0.0",
    "op.random.fold_in": "parent=key, number=3",
    "op.random.dropout": "x=x, p=0.5, parent=key",
    "op.random.split": "parent=key",
    "op.reshape": "x=x, shape=(4, 3)",
    "op.resize": "x=image, size=(5, 16)",
    "op.acosh": "x=x",
}
WRONG = (
    """
None | 2.5 | 'a' | '' | [] | () | {} | 10**30 | 10**400 | -10**30 | -3 | 0 | True | 1j | b'a' | y.shape[0]
(1, 2, 3, 4, 5, 6, 7) | (1,) | (-1, -1) | (None, 2) | [[1, 2], [3]] | ['a'] | [x] | [None] | float('nan') | float('inf')
np.float32(2.0) | np.int64(1) | np.bool_(True) | np.ones((3, 4)) | np.ones(0) | np.array([None, 2], object)
np.array(['a']) | np.ones(2, complex) | np.array(10**30) | lambda *_: 1 | lambda *_: None | lambda *v: v
f32 | x | i | s | key | mask | cache | object() | op | {1, 2} | range(2) | np | slice(1) | ...
""".strip()
    .replace("\n", " | ")
    .split(" | ")
)


def _functions() -> Iterator[tuple[str, Callable[..., object]]]:
    for home, module in (("op", op), ("op.random", op.random), ("op.init", op.init)):
        for name, function in vars(module).items():
            own = name in op.__all__ if module is op else getattr(function, "__module__", "") == module.__name__
            if own and inspect.isfunction(function) and not name.startswith("_"):
                yield f"{home}.{name}", function
    yield "op.Krylov", op.Krylov


FUNCTIONS = dict(_functions())


def _space(trace: Trace, text: str) -> dict[str, object]:
    """What a text names."""
    words = set(re.findall(r"[a-z]+", text))
    words |= {"keys", "length"} if "cache" in words else set()
    made = {
        name: Tensor(trace, trace.input(name, TensorSpec(shape, numeric), None), name)
        for name, (shape, numeric) in INPUTS.items()
        if name in words
    }
    cache = {"cache": KVCache(made["keys"], made["keys"], made["length"])} if "cache" in words else {}
    return {**made, **cache, "op": op, "np": np, "f32": f32, "f64": f64}


def _usual(name: str) -> tuple[list[str], dict[str, str]]:
    """The texts of sensible arguments of a function, by position and by name."""
    places: list[str] = []
    words: dict[str, str] = {}

    def read(*args: str, **kwargs: str) -> None:
        places.extend(args)
        words.update(kwargs)

    special = SPECIAL.get(name)
    if special is not None:
        call = ast.parse(f"f({special})", mode="eval").body
        assert isinstance(call, ast.Call)
        read(*(ast.unparse(a) for a in call.args), **{str(k.arg): ast.unparse(k.value) for k in call.keywords})
        return places, words
    for word, parameter in inspect.signature(FUNCTIONS[name]).parameters.items():
        if parameter.default is parameter.empty:
            words[word] = USUAL[word]
    return places, words


def _calls(name: str) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The sensible call, and every one with one wrong argument."""
    places, words = _usual(name)
    yield places, words
    for wrong in WRONG:
        for index in range(len(places)):
            yield [*places[:index], wrong, *places[index + 1 :]], words
        for word in list(inspect.signature(FUNCTIONS[name]).parameters)[len(places) :]:
            if not places or word in words:
                yield places, {**words, word: wrong}


def _text(name: str, places: Sequence[str], words: Mapping[str, str]) -> str:
    return f"{name}({', '.join([*places, *(f'{word}={value}' for word, value in words.items())])})"


def _outcome(text: str) -> str | None:
    """What is wrong with what an expression does; None where it gives a result or the language's own error."""
    trace = Trace("m", {})
    space = _space(trace, text)
    try:
        with tracing(trace):
            made = eval(text, space)
            if text.startswith("op.init.") and callable(made):
                made((2, 3))
            if text.startswith("op.tensor"):
                _ = getattr(made, "array")  # noqa: B009  its numbers are made when they are asked for
    except TesseraError as error:
        return None if error.code != "AUTHOR_CODE_FAILED" else f"{text}: {error}"
    except Exception as error:
        return f"{text}: {type(error).__name__}: {error}"
    return None


@pytest.mark.errors
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_when_called_with_a_wrong_argument_then_gives_a_result_or_the_languages_error(name: str) -> None:
    failures = [found for call in _calls(name) if (found := _outcome(_text(name, *call))) is not None]
    assert failures == []


@pytest.mark.errors
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_when_called_as_it_is_meant_then_gives_a_result(name: str) -> None:
    """Otherwise the other test would look at one refusal again and again."""
    trace, text = Trace("m", {}), _text(name, *_usual(name))
    with tracing(trace):
        assert eval(text, _space(trace, text)) is not None


SIGNS = ("+", "-", "*", "/", "//", "%", "**", "@", "<", ">=", "==", "&", "|", "^")


@pytest.mark.errors
@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("tensor", ["x", "i", "mask"])
def test_operator_when_beside_a_wrong_operand_then_gives_a_result_or_the_languages_error(
    tensor: str, sign: str
) -> None:
    wrong = [text for text in WRONG if not (sign == "%" and text in ("'a'", "''", "b'a'"))]  # Python's formatting
    texts = [text for other in wrong for text in (f"{tensor} {sign} ({other})", f"({other}) {sign} {tensor}")]
    assert [found for text in texts if (found := _outcome(text)) is not None] == []


@pytest.mark.errors
@pytest.mark.parametrize("form", ["x[{}]", "x[{}:]", "x[:, {}]", "x[::{}]"])
def test_index_when_wrong_then_gives_a_result_or_the_languages_error(form: str) -> None:
    assert [found for wrong in WRONG if (found := _outcome(form.format(wrong))) is not None] == []


X = np.asarray([[1, -2, 3, 4], [5, 6, -7, 8]], np.float32)
# Of v, which is X while a model is traced, and what it gives.
CONSTANTS: dict[str, object] = {
    "op.reshape(X, (np.int64(4), 2)) * v[0, 0]": X.reshape(4, 2),
    "op.layernorm(v, X[0], 2.0) - op.layernorm(v, op.constant(X[0]))": np.full_like(X, 2),
    "op.gather(X, op.argmin(v, 0))": X[[0, 0, 1, 0]],
    "v[np.asarray([1, 0])][:, : np.int32(2)]": X[[1, 0]][:, :2],
    "op.where(np.asarray([True, False, True, False]), v, 0.0)": X * [1, 0, 1, 0],
    "op.clip(v, op.reduce_min(v) + 8.0, np.float32(3.0))": np.clip(X, 1, 3),
    "op.full((2,), op.reduce_max(v))": np.full(2, 8),
    "op.leaky_relu(v, X[0])": np.where(X > 0, X, X * X[0]),
}


@pytest.mark.numerics
@pytest.mark.parametrize("text", CONSTANTS)
def test_arrays_and_numbers_when_given_for_tensors_then_are_constants(text: str) -> None:
    """What one operand may be, the others may be, too."""
    found = graph.jit(lambda v: eval(text, {"op": op, "np": np, "X": X, "v": v}))(X)  # pyright: ignore[reportUnknownLambdaType]
    np.testing.assert_allclose(np.asarray(found), np.asarray(CONSTANTS[text]), atol=1e-6)
