"""Memory of torch as arrays of bits, of types that numpy does not have."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from bundle_format.foreign import lent_bits

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.unit


@pytest.mark.parametrize("change", ["x", "x.T", "x[1:, ::2]", "x[:0]", "x[0, 0]"])
def test_bf16_when_borrowed_then_the_bits_are_the_tensors_own_memory(change: str) -> None:
    tensor = eval(change, {"x": torch.randn(4, 6).bfloat16()})
    lent = lent_bits(tensor)
    assert lent is not None
    array = np.asarray(lent)
    assert (lent.name, array.dtype, array.shape) == ("bf16", np.uint16, tuple(tensor.shape))
    np.testing.assert_array_equal(array, tensor.contiguous().view(torch.uint16).numpy())
    assert not array.size or (array.ctypes.data == tensor.data_ptr() and not array.flags.writeable)


def test_bf16_when_the_tensor_is_gone_then_its_memory_is_kept() -> None:
    tensor = torch.arange(4096).bfloat16()
    array, expected = np.asarray(lent_bits(tensor))[1:], tensor.view(torch.uint16).numpy()[1:].copy()
    del tensor
    gc.collect()
    others = [torch.zeros(4096).bfloat16() for _ in range(16)]
    np.testing.assert_array_equal(array, expected)
    assert len(others) == 16


@pytest.mark.parametrize(("dtype", "name"), [("float8_e4m3fn", "f8e4m3"), ("float8_e5m2", "f8e5m2"), ("float32", None)])
def test_tensor_when_lent_then_its_type_is_named_where_numpy_has_none(dtype: str, name: str | None) -> None:
    lent = lent_bits(torch.ones(3).to(getattr(torch, dtype)))
    assert (lent and lent.name) == name
    assert lent is None or np.asarray(lent).dtype == np.uint8
