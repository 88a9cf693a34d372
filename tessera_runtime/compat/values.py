"""What onnxruntime says of a model's inputs and outputs, and its box around a tensor.

Takes: signatures and arrays. Gives: `NodeArg`, `ModelMetadata`, `OrtValue`.
Invariant: a box shares the memory of the array it was made from; `numpy()` gives a copy.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, cast, final

import numpy as np

from tessera_runtime.arrays import Array, TensorSpec
from tessera_runtime.compat.errors import InvalidArgument
from tessera_runtime.compat.errors import NotImplemented as Unsupported

_TYPES: Final = {
    "f64": "double",
    "f32": "float",
    "f16": "float16",
    "bf16": "bfloat16",
    "i64": "int64",
    "i32": "int32",
    "i16": "int16",
    "i8": "int8",
    "u64": "uint64",
    "u32": "uint32",
    "u16": "uint16",
    "u8": "uint8",
    "bool": "bool",
    "f8e4m3": "float8e4m3fn",
    "f8e5m2": "float8e5m2",
    "f8e4m3fnuz": "float8e4m3fnuz",
    "f8e5m2fnuz": "float8e5m2fnuz",
    "f8e8m0": "float8e8m0",
    "f4e2m1": "float4e2m1",
    "i4": "int4",
    "u4": "uint4",
}
# The numbers of ONNX's TensorProto.DataType.
_ELEMENTS: Final = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "uint32": 12,
    "uint64": 13,
}
# Of ml_dtypes: only a program that has imported it has such arrays, or numpy's names for them.
_EXTENDED: Final = {
    "bfloat16": 16,
    "float8_e4m3fn": 17,
    "float8_e4m3fnuz": 18,
    "float8_e5m2": 19,
    "float8_e5m2fnuz": 20,
    "uint4": 21,
    "int4": 22,
    "float4_e2m1fn": 23,
    "float8_e8m0fnu": 24,
    "uint2": 25,
    "int2": 26,
}
_BY_NUMPY: Final = {"float64": "f64", "float32": "f32", "float16": "f16", "bool": "bool"}


class NodeArg(NamedTuple):
    """An input or an output. `shape` holds integers, and names where an extent is dynamic."""

    name: str
    type: str
    shape: list[int | str]


class ModelMetadata(NamedTuple):
    """What is known of the model's origin."""

    producer_name: str
    graph_name: str
    custom_metadata_map: Mapping[str, str]
    domain: str = ""
    description: str = ""
    graph_description: str = ""
    version: int = 0


def node_arg(spec: TensorSpec) -> NodeArg:
    """A signature's value as onnxruntime shows it."""
    return NodeArg(spec.name, type_text(spec.dtype), list(spec.shape))


def type_text(dtype: str) -> str:
    """`tensor(float)` and its like."""
    return f"tensor({_TYPES.get(dtype, dtype)})"


def dtype_of_element(element: object) -> np.dtype[np.generic]:
    """A numpy dtype from a numpy type or from a number of ONNX."""
    if isinstance(element, int):
        names = [name for name, number in _ELEMENTS.items() if number == element]
        if not names:
            raise InvalidArgument("ARGUMENT", "there is no such element type", found=str(element))
        return np.dtype(names[0])
    return np.dtype(cast("type[np.generic]", element))


@final
class OrtValue:
    """A tensor in the memory of the CPU."""

    def __init__(self, array: Array) -> None:
        self.array = array

    @staticmethod
    def ortvalue_from_numpy(array: Array, device_type: str = "cpu", device_id: int = 0) -> "OrtValue":
        """A box around this array, without a copy."""
        check_device(device_type, device_id)
        return OrtValue(array)

    @staticmethod
    def ortvalue_from_shape_and_type(
        shape: Sequence[int], element_type: object, device_type: str = "cpu", device_id: int = 0
    ) -> "OrtValue":
        """A box with memory of its own, to be written into."""
        check_device(device_type, device_id)
        return OrtValue(np.zeros(tuple(shape), dtype_of_element(element_type)))

    def numpy(self) -> Array:
        """A copy of the values."""
        return self.array.copy()

    def shape(self) -> list[int]:
        """The extents."""
        return list(self.array.shape)

    def data_type(self) -> str:
        """`tensor(float)` and its like."""
        name = self.array.dtype.name
        return type_text(_BY_NUMPY.get(name, name))

    def element_type(self) -> int:
        """The number that ONNX gives to the element type."""
        return {**_ELEMENTS, **_EXTENDED}[self.array.dtype.name]

    def data_ptr(self) -> int:
        """The address of the first element."""
        return int(self.array.__array_interface__["data"][0])

    def device_name(self) -> str:
        """Where the memory is."""
        return "cpu"

    def tensor_size_in_bytes(self) -> int:
        """How much memory it is."""
        return self.array.nbytes

    def has_value(self) -> bool:
        """Always."""
        return True

    def is_tensor(self) -> bool:
        """Always."""
        return True

    def is_sparse_tensor(self) -> bool:
        """Never."""
        return False

    def is_tensor_sequence(self) -> bool:
        """Never."""
        return False

    def update_inplace(self, array: Array) -> None:
        """Copy the values of an array of the same shape and dtype into the box."""
        if array.shape != self.array.shape or array.dtype != self.array.dtype:
            expected = f"{self.array.dtype} {self.array.shape}"
            raise InvalidArgument(
                "INPUT_SHAPE", "the array does not fit", expected=expected, found=f"{array.dtype} {array.shape}"
            )
        np.copyto(self.array, array)


def check_device(device_type: str, device_id: int) -> None:
    """Only the memory of the CPU exists here."""
    if device_type.lower() != "cpu" or device_id != 0:
        raise Unsupported("DEVICE", "there is no such device", expected="cpu 0", found=f"{device_type} {device_id}")
