"""States that loops carry, branches return, checkpoints and gradients pass through: as what is written out gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tessera_build
import tessera_runtime
from tessera.errors import LanguageError
from tessera_build.frontends.python import read_python
from tests.language.build import HEAD, Floats, draw, written
from tests.language.numeric import Doubles

MODEL = """
from tessera import rolling_window

W = op.tensor((4, 4), init=op.init.normal(seed=1, scale=0.5))

def turn(cache, speed, q):
    cache = cache.append(q @ W, op.tanh(q))
    y = op.flash_attention(q, cache)
    return cache, speed.set(speed.value * 0.5 + op.reduce_sum(op.reshape(y, (2, 4)), axes=1)), y

def looped(cache, speed, x):
    def body(carried, q):
        cache, speed, y = graph.checkpoint(turn)(carried["cache"], carried["speed"], q)
        return {"cache": cache, "speed": speed}, y
    carried, ys = op.scan(body, {"cache": cache, "speed": speed}, x)
    return carried["cache"], carried["speed"], ys

def written_out(cache, speed, x):
    ys = []
    for i in range(5):
        cache, speed, y = turn(cache, speed, x[i])
        ys.append(y)
    return cache, speed, op.stack(ys)

def step(run, x, cache, speed):
    def loss(x):
        c, s, ys = run(cache, speed, x)
        return op.reduce_sum(op.sin(ys)) + op.reduce_sum(c.values * c.keys) + op.reduce_sum(s.value)
    last, faster, ys = run(cache, speed, x)
    return {"y": ys, "gradient": graph.grad(loss)(x)}, last, faster

@graph.module("loop")
def loop(x: Tensor[5, 1, 2, 1, 4], cache: KVCache[1, 2, 12, 4, f32]RULE, speed: State[2, f32]):
    return step(looped, x, cache, speed)

@graph.module("line")
def line(x: Tensor[5, 1, 2, 1, 4], cache: KVCache[1, 2, 12, 4, f32]RULE, speed: State[2, f32]):
    return step(written_out, x, cache, speed)
"""


@pytest.mark.numerics
@pytest.mark.parametrize("rule", ["", " @ rolling_window"])
def test_states_when_a_loop_carries_them_then_are_those_of_turns_written_out(tmp_path: Path, rule: str) -> None:
    bundle = tmp_path / "model.tessera"
    tessera_build.build(written(tmp_path, MODEL.replace("RULE", rule)), ["native"], bundle, workers=1)
    found: dict[str, list[Doubles]] = {}
    with tessera_runtime.load(bundle, threads=1) as model:
        for name, entry in model.entries.items():
            state = entry.new_state()
            for call in range(2):
                given = {"x": draw(call, 5, 1, 2, 1, 4)}
                found.setdefault(name, []).extend(
                    np.array(v, np.float64) for v in entry.run(given, state=state).values()
                )
            assert state.arrays["cache.length"] == [10]
            found[name] += [np.array(v, np.float64) for v in state.arrays.values()]
    for one, other in zip(found["loop"], found["line"], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.numerics
def test_cache_when_data_choose_whether_it_grows_then_is_that_of_the_branch(tmp_path: Path) -> None:
    body = """
    @graph.module("m")
    def m(x: Tensor[1, 2, 1, 4], go: Tensor[f32], cache: KVCache[1, 2, 6, 4, f32]):
        cache = op.cond(go > 0.0, lambda: cache.append(x, x * 2.0), lambda: cache)
        more = lambda c: c.append(x, -x)
        return op.while_(lambda c: op.reduce_sum(c.length) < 3, more, cache, max_iter=4)
    """
    bundle = tmp_path / "model.tessera"
    tessera_build.build(written(tmp_path, body), ["native"], bundle, workers=1)
    x = draw(0, 1, 2, 1, 4)
    with tessera_runtime.load(bundle, threads=1) as model:
        for go, first in ((1.0, 2.0), (-1.0, -1.0)):
            state = model.new_state()
            model.run({"x": x, "go": np.asarray(go, np.float32)}, state=state)
            np.testing.assert_array_equal(state.arrays["cache.length"], [3])
            wanted = np.concatenate([x * np.float32(first), -x, -x, np.zeros((1, 2, 3, 4), np.float32)], axis=2)
            np.testing.assert_array_equal(state.arrays["cache.values"], wanted)


EAGER = """
@graph.module("decode")
def decode(q: Tensor["B", 2, "T", 4, f32], cache: KVCache["B", 2, 8, 4, f32], calls: State[1, f32]):
    cache = cache.append(q, q * 2.0)
    return op.flash_attention(q, cache), cache, calls.set(calls.value + 1.0)

def called_twice(q):
    rows = np.zeros((1, 2, 8, 4), np.float32)
    cache, calls = KVCache(rows, rows, np.zeros(1, np.int64)), State(np.zeros(1, np.float32))
    for _ in range(2):
        _, cache, calls = decode(q, cache, calls)
    return cache.values, cache.length, calls.value
"""


@pytest.mark.numerics
def test_states_when_a_call_takes_arrays_then_gives_the_next_ones() -> None:
    names: dict[str, Callable[[Floats], tuple[Floats, Floats, Floats]]] = {}
    exec(f"import numpy as np\n{HEAD}{EAGER}", names)
    q = draw(0, 1, 2, 2, 4)
    values, length, calls = names["called_twice"](q)
    assert (length.tolist(), calls.tolist()) == ([4], [2.0])
    np.testing.assert_array_equal(values[:, :, :4], np.concatenate([q, q], axis=2) * 2)


@pytest.mark.unit
def test_branches_when_they_return_other_states_then_are_refused(tmp_path: Path) -> None:
    body = """
    @graph.module("m")
    def m(x: Tensor[f32], a: State[3, f32], b: State[3, f32]):
        return op.cond(x > 0.0, lambda: (a, b), lambda: (b, a))
    """
    with pytest.raises(LanguageError, match="BRANCHES_DIFFER"):
        read_python(written(tmp_path, body))


@pytest.mark.numerics
def test_gradient_when_it_is_of_a_state_then_is_an_output_and_no_next_state(tmp_path: Path) -> None:
    body = """
    @graph.module("m")
    def m(x: Tensor[3, f32], s: State[3, f32]):
        loss = lambda state: op.reduce_sum(x * state.value * state.value)
        y, slope = graph.forward(lambda state: state.set(state.value * 3.0), (s,), tangents=(s,))
        return {"g": graph.grad(loss)(s), "slope": slope}, s.set(s.value + 1.0)
    """
    tessera_build.build(written(tmp_path, body), targets=["native"], out=tmp_path / "m.tessera")
    with tessera_runtime.load(tmp_path / "m.tessera", threads=1) as model:
        state, x = model.new_state(), draw(0, 3)
        for turn in range(3):
            found = {name: array.astype(np.float64) for name, array in model.run({"x": x}, state=state).items()}
            assert list(found) == ["g", "slope"]
            np.testing.assert_allclose(found["g"], 2 * x * turn, rtol=1e-6)
            np.testing.assert_allclose(found["slope"], np.full(3, 3.0 * turn), rtol=1e-6)


@pytest.mark.errors
def test_gradient_when_it_alone_is_returned_for_a_state_then_the_next_state_is_missed(tmp_path: Path) -> None:
    body = """
    @graph.module("m")
    def m(s: State[3, f32]):
        return graph.grad(lambda state: op.reduce_sum(state.value * state.value))(s)
    """
    with pytest.raises(LanguageError, match="does not return the next s"):
        read_python(written(tmp_path, body))
