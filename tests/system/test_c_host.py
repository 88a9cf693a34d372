"""A real bundle served by C: its code and its weights are files, its answers are the bytes that Python gets."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import tessera_build
import tessera_runtime
from bundle_format import media
from bundle_format.reader import open_bundle
from tests.frontends_onnx.oracle import floats, integers, make_model
from tests.models.bundles import digits_images
from tests.runtime.conftest import compile_c


def unpack(bundle: Path, target: str, folder: Path) -> Iterator[str]:
    """Write a variant's code to `model.so` and each weight to a file of its own; gives the weights' names in order."""
    with open_bundle(bundle) as opened:
        (variant,) = (v for v in opened.variants if v.config.target.name == target)
        (code,) = variant.layers(media.ELF_CODE)
        (folder / "model.so").write_bytes(opened.copy(code))
        blobs = {layer.digest: opened.weights(layer) for layer in variant.layers(media.WEIGHTS)}
        for row, weight in enumerate(variant.config.weights):
            data = blobs[weight.digest][weight.offset : weight.offset + weight.bytes]
            (folder / f"weight{row}").write_bytes(data)
            yield f"weight{row}"


@pytest.mark.numerics
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [1, 37])
def test_c_program_when_it_serves_a_built_bundle_then_gets_the_bytes_of_python(
    digits_bundle: Path, tmp_path: Path, threads: int, count: int
) -> None:
    compile_c(tmp_path / "host", "host.c", "-ldl", "-lpthread")
    with tessera_runtime.load(digits_bundle, threads=1) as model:
        images = digits_images(count)
        expected = model.run(image=images)["probabilities"]
        weights = list(unpack(digits_bundle, model.target, tmp_path))
    (tmp_path / "image").write_bytes(images.tobytes())
    files = [*weights, "--", "image", "--", f"probabilities:{expected.nbytes}"]
    command = [str(tmp_path / "host"), str(tmp_path / "model.so"), "0", str(threads), str(count), *files]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "probabilities").read_bytes() == expected.tobytes()


@pytest.mark.numerics
def test_c_program_when_data_make_the_shape_then_gets_the_memory_that_the_run_allocated(tmp_path: Path) -> None:
    compile_c(tmp_path / "host", "host.c", "-ldl", "-lpthread")
    nodes = [helper.make_node("Tile", ["x", "k"], ["wide"]), helper.make_node("Tanh", ["wide"], ["y"])]
    model = make_model(nodes, {"x": (np.float32, ("A", 5)), "k": (np.int64, (2,))}, ["y"])
    tessera_build.build(model, None, tmp_path / "tile.tessera", workers=1, verify=False)
    x, k = floats(3, 5), integers(4, 2)
    with tessera_runtime.load(tmp_path / "tile.tessera", threads=1) as loaded:
        expected = loaded.run(x=x, k=k)["y"]
        weights = list(unpack(tmp_path / "tile.tessera", loaded.target, tmp_path))
    for name, array in (("x", x), ("k", k)):
        (tmp_path / name).write_bytes(array.tobytes())
    command = [
        str(tmp_path / "host"),
        str(tmp_path / "model.so"),
        "0",
        "2",
        "3",
        *weights,
        "--",
        "x",
        "k",
        "--",
        "y:?4,2",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert expected.shape == (12, 10)
    assert (tmp_path / "y").read_bytes() == expected.tobytes()
