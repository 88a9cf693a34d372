"""The repository's own trained network: one bundle, three targets, any batch, any number of threads and callers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

import tessera_build
from tests.models.bundles import DIGITS, assert_equals_onnxruntime, digits_images, skip_unless_runnable, variant

pytestmark = pytest.mark.numerics

TARGETS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network, built for three levels of CPU."""
    path = tmp_path_factory.mktemp("digits") / "digits.tessera"
    return tessera_build.build(DIGITS / "digits.onnx", TARGETS, path, cache=False).path


@pytest.mark.parametrize("target", TARGETS)
def test_digits_when_batch_differs_then_one_bundle_equals_onnxruntime(bundle: Path, target: str) -> None:
    skip_unless_runnable(target)
    proto = onnx.load_model(DIGITS / "digits.onnx")
    with variant(bundle, target, threads=2) as model:
        for count in (1, 2, 3, 7, 32):
            assert_equals_onnxruntime(model, proto, {"image": digits_images(count)})


@pytest.mark.parametrize("target", TARGETS)
def test_digits_when_threads_and_callers_differ_then_bytes_do_not(bundle: Path, target: str) -> None:
    skip_unless_runnable(target)
    images = digits_images(37)
    with variant(bundle, target, threads=1) as one, variant(bundle, target, threads=2) as two:
        alone = one.run(image=images)["probabilities"].tobytes()
        assert two.run(image=images)["probabilities"].tobytes() == alone
        with ThreadPoolExecutor(8) as callers:
            runs = [callers.submit(model.run, {"image": images}) for model in (one, two) for _ in range(24)]
            assert {run.result()["probabilities"].tobytes() for run in runs} == {alone}


@pytest.mark.parametrize("target", TARGETS)
def test_digits_when_an_image_has_other_neighbours_then_its_row_keeps_its_bytes(bundle: Path, target: str) -> None:
    skip_unless_runnable(target)
    images = digits_images(33)
    with variant(bundle, target) as model:
        together = model.run(image=images)["probabilities"]
        for index in (0, 15, 31, 32):
            (alone,) = model.run(image=images[index : index + 1])["probabilities"]
            assert alone.tobytes() == together[index].tobytes()


def test_digits_when_served_then_labels_are_right(bundle: Path) -> None:
    with np.load(DIGITS / "digits_test.npz") as held_out:
        images, labels = held_out["image"], held_out["label"]
    with variant(bundle, "x86-64-v2") as model:
        found = np.argmax(model.run(image=images)["probabilities"], axis=1)
    assert float(np.mean(found == labels)) >= 0.97
