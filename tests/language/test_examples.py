"""The examples that are written in the language: they build with proof, are right, and repeat to the last bit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

import tessera_build
import tessera_runtime

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.numerics
def test_mlp_when_built_then_reads_digits_and_gives_the_same_gradients_every_time(tmp_path: Path) -> None:
    bundle = tmp_path / "mlp.tessera"
    result = tessera_build.build(EXAMPLES / "mlp" / "model.py", ["native"], bundle, workers=1)
    assert [case.entry for case in result.verification[0].cases] == ["classify", "train", "classify", "train"]
    with np.load(EXAMPLES / "digits" / "digits_test.npz") as data:
        images, labels = data["image"].reshape(-1, 64), data["label"]
    feeds = {"x": images[:100], "label": labels[:100]}
    digests: set[str] = set()
    for threads in (1, 2):
        with tessera_runtime.load(bundle, threads=threads) as model:
            probabilities = model.entries["classify"].run({"x": images})["probabilities"]
            inputs = model.entries["train"].inputs[2:]
            weights = {v.name: np.full([int(e) for e in v.shape], 0.01, np.float32) for v in inputs}
            for _ in range(20):
                found = model.entries["train"].run({**feeds, **weights})
                digests.add(hashlib.sha256(b"".join(found[name].tobytes() for name in sorted(found))).hexdigest())
        assert float((probabilities.argmax(1) == labels).mean()) > 0.95
    assert len(digests) == 1


@pytest.mark.numerics
def test_page_when_its_first_example_is_built_then_both_entries_are_proved(tmp_path: Path) -> None:
    page = (EXAMPLES.parent / "docs" / "language.md").read_text(encoding="utf-8")
    (tmp_path / "model.py").write_text(page.split("```python\n")[1].split("```")[0], encoding="utf-8")
    result = tessera_build.build(tmp_path / "model.py", ["native"], tmp_path / "out.tessera", workers=1)
    assert {case.entry for case in result.verification[0].cases} == {"classify", "train"}


def _feeds(point: tessera_runtime.EntryPoint, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Inputs for one entry: dims of 5, numbers around 0, integers below 8."""
    feeds: dict[str, np.ndarray] = {}
    for value in point.inputs:
        shape = [extent if isinstance(extent, int) else 5 for extent in value.shape]
        floats = value.dtype == "f32"
        feeds[value.name] = generator.standard_normal(shape).astype(np.float32) * 0.3 if floats else (
            generator.integers(0, 8, shape)
        )  # fmt: skip
    return feeds


@pytest.mark.numerics
@pytest.mark.parametrize(("name", "entry"), [("transformer", "train"), ("pinn", "train"), ("opt_layer", "gradients")])
def test_example_when_built_then_is_proved_and_its_gradients_repeat_to_the_bit(
    name: str, entry: str, tmp_path: Path
) -> None:
    bundle = tmp_path / "example.tessera"
    result = tessera_build.build(EXAMPLES / name / "model.py", ["native"], bundle, workers=1)
    assert {case.entry for case in result.verification[0].cases} > {entry}
    digests: set[str] = set()
    for threads in (1, 2):
        with tessera_runtime.load(bundle, threads=threads) as model:
            feeds = _feeds(model.entries[entry], np.random.default_rng(0))
            for _ in range(20):
                found = model.entries[entry].run(feeds)
                assert any(key.startswith("grad") for key in found)
                digests.add(hashlib.sha256(b"".join(found[key].tobytes() for key in sorted(found))).hexdigest())
    assert len(digests) == 1


@pytest.mark.numerics
def test_transformer_when_stepped_through_a_text_then_scores_it_as_the_whole(tmp_path: Path) -> None:
    bundle = tmp_path / "transformer.tessera"
    path = EXAMPLES / "transformer" / "model.py"
    tessera_build.build(path, ["native"], bundle, workers=1, verify=False, entries=["predict", "step"])
    text = np.random.default_rng(1).integers(0, 32, (2, 9))
    with tessera_runtime.load(bundle, threads=1) as model:
        whole = model.entries["predict"].run({"text": text})["scores"]
        cache = np.zeros((2, 2, 64, 16), np.float32)
        parts = {f"{name}.{part}": cache for name in ("first", "second") for part in ("keys", "values")}
        lengths = {f"{name}.length": np.zeros(2, np.int64) for name in ("first", "second")}
        state = model.entries["step"].new_state({**parts, **lengths})
        for start, stop in ((0, 4), (4, 5), (5, 9)):
            piece = np.array(text[:, start:stop])
            found = model.entries["step"].run({"text": piece}, {}, state)["scores"]
            np.testing.assert_allclose(
                np.asarray(found, np.float32), np.asarray(whole[:, start:stop], np.float32), atol=2e-4
            )
