"""Parameters in safetensors files: written, read, refused."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tessera import bf16, f16, f32, graph, op
from tessera.errors import LanguageError
from tessera_build.frontends.python import read_python
from tessera_build.frontends.python.safetensors import read_safetensors, write_safetensors
from tessera_build.ir.graph.nodes import Array
from tests.language.build import written


class Net(graph.Module):
    """Parameters in each of the types that weights have."""

    def __init__(self, seed: int, rows: int = 3) -> None:
        self.wide = op.tensor((rows, 2), f32, init=op.init.normal(seed=seed))
        self.brain = op.tensor((5,), bf16, init=op.init.normal(seed=seed + 1))
        self.half = [op.tensor((2, 2), f16, init=op.init.normal(seed=seed + 2))]


def _arrays(net: Net) -> dict[str, Array]:
    return {name: np.asarray(parameter.array) for name, parameter in net.parameters()}


def test_parameters_when_saved_and_loaded_then_are_equal(tmp_path: Path) -> None:
    first, second = Net(1), Net(11)
    graph.save(first, tmp_path / "net.safetensors")
    graph.load(second, tmp_path / "net.safetensors")
    assert _arrays(second).keys() == {"wide", "brain", "half.0"}
    for name, array in _arrays(first).items():
        assert _arrays(second)[name].dtype == array.dtype
        assert _arrays(second)[name].tobytes() == array.tobytes()


def test_file_when_written_then_others_read_it(tmp_path: Path) -> None:
    torch_safetensors = pytest.importorskip("safetensors.numpy")
    graph.save({"wide": Net(1).wide}, tmp_path / "net.safetensors")
    found = torch_safetensors.load_file(tmp_path / "net.safetensors")
    assert np.array_equal(found["wide"], np.asarray(Net(1).wide.array))


def test_file_when_written_twice_then_has_the_same_bytes_and_aligned_data(tmp_path: Path) -> None:
    arrays = {"b": np.ones(3, np.float32), "a": np.arange(5, dtype=np.int8), "empty": np.zeros((0, 4), np.float16)}
    write_safetensors(tmp_path / "1.safetensors", arrays)
    write_safetensors(tmp_path / "2.safetensors", dict(reversed(arrays.items())))
    data = (tmp_path / "1.safetensors").read_bytes()
    assert data == (tmp_path / "2.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    assert list(json.loads(data[8 : 8 + length])) == ["a", "b", "empty"]
    found = read_safetensors(tmp_path / "1.safetensors")
    assert all(
        np.array_equal(found[name], array) and found[name].dtype == array.dtype for name, array in arrays.items()
    )


def test_file_when_names_and_shapes_differ_then_all_of_them_are_told(tmp_path: Path) -> None:
    graph.save({"wide": Net(1).wide, "half.0": Net(1).brain, "other": Net(1).brain}, tmp_path / "w.safetensors")
    net = Net(2)
    before = _arrays(net)
    with pytest.raises(LanguageError) as refused:
        graph.load(net, tmp_path / "w.safetensors")
    text = refused.value.diagnostics()
    assert refused.value.code == "WEIGHTS_MISMATCH"
    assert "missing:  brain" in text
    assert "left over: other" in text
    assert "half.0: the file has bf16[5], the model f16[2, 2]" in text
    assert all(np.array_equal(array, before[name]) for name, array in _arrays(net).items())


def test_file_when_not_strict_or_converted_then_gives_what_fits(tmp_path: Path) -> None:
    exact = np.asarray([[1.5, 2.0], [0.25, -1.0]])
    write_safetensors(tmp_path / "w.safetensors", {"half.0": exact.astype(ml_dtypes.bfloat16)})
    net = Net(1)
    with pytest.raises(LanguageError, match="WEIGHTS_MISMATCH"):
        graph.load(net, tmp_path / "w.safetensors", strict=False)
    graph.load(net, tmp_path / "w.safetensors", strict=False, convert=True)
    assert np.array_equal(_arrays(net)["half.0"].astype(np.float64), exact)


def test_file_beside_a_model_when_a_name_is_misspelt_then_is_refused(tmp_path: Path) -> None:
    model = written(tmp_path, "W = op.tensor((2,))\n\n\n@graph.module('f')\ndef f(x: Tensor[2]):\n    return x * W\n")
    write_safetensors(tmp_path / "model.safetensors", {"w": np.ones(2, np.float32)})
    with pytest.raises(LanguageError) as refused:
        read_python(model)
    assert refused.value.code == "WEIGHTS_MISMATCH"
    assert "found:    w" in refused.value.diagnostics()
    write_safetensors(tmp_path / "model.safetensors", {"W": np.ones(2, np.float32)})
    assert read_python(model).module.entries


def test_file_when_it_cannot_hold_a_type_then_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(LanguageError, match="no such element type"):
        write_safetensors(tmp_path / "w.safetensors", {"x": np.zeros(2, ml_dtypes.int4)})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(LanguageError, match="there is no file"):
        graph.load(Net(1), tmp_path / "w.safetensors")
