"""Inputs and outputs bound to memory, for one run or many.

Takes: arrays, boxes, addresses. Gives: `IOBinding`, which a session runs.
Invariant: it keeps alive what was bound as an array; memory bound by address is its owner's care, as in onnxruntime.
"""

import ctypes
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np

from tessera_runtime.arrays import Array
from tessera_runtime.compat.errors import InvalidArgument
from tessera_runtime.compat.values import NodeArg, OrtValue, check_device, dtype_of_element


@final
class IOBinding:
    """What a run reads and writes."""

    def __init__(self, inputs: Sequence[NodeArg], outputs: Sequence[NodeArg]) -> None:
        self._inputs = {argument.name for argument in inputs}
        self._outputs = {argument.name for argument in outputs}
        self._feeds: dict[str, Array] = {}
        self._wanted: dict[str, Array | None] = {}
        self._results: list[OrtValue] = []

    def bind_cpu_input(self, name: str, array: Array) -> None:
        """Read this array."""
        self._feeds[self._known(name, self._inputs)] = array

    def bind_ortvalue_input(self, name: str, value: OrtValue) -> None:
        """Read this box."""
        self.bind_cpu_input(name, value.array)

    def bind_input(  # noqa: PLR0913  onnxruntime's signature
        self, name: str, device_type: str, device_id: int, element_type: object, shape: Sequence[int], buffer_ptr: int
    ) -> None:
        """Read the memory at an address."""
        check_device(device_type, device_id)
        self.bind_cpu_input(name, _at(buffer_ptr, element_type, shape))

    def bind_output(  # noqa: PLR0913  onnxruntime's signature
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: object = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """Write to an address, or to new memory when there is none."""
        check_device(device_type, device_id)
        array = None
        if buffer_ptr is not None:
            if shape is None or element_type is None:
                raise InvalidArgument("ARGUMENT", "an address needs a shape and an element type", where=name)
            array = _at(buffer_ptr, element_type, shape)
        self._wanted[self._known(name, self._outputs)] = array

    def bind_ortvalue_output(self, name: str, value: OrtValue) -> None:
        """Write into this box."""
        self._wanted[self._known(name, self._outputs)] = value.array

    def clear_binding_inputs(self) -> None:
        """Forget the inputs."""
        self._feeds.clear()

    def clear_binding_outputs(self) -> None:
        """Forget the outputs and what was written."""
        self._wanted.clear()
        self._results.clear()

    def synchronize_inputs(self) -> None:
        """Nothing to wait for on a CPU."""

    def synchronize_outputs(self) -> None:
        """Nothing to wait for on a CPU."""

    def get_outputs(self) -> list[OrtValue]:
        """What the last run wrote, in the order of binding."""
        return list(self._results)

    def copy_outputs_to_cpu(self) -> list[Array]:
        """Copies of what the last run wrote."""
        return [value.numpy() for value in self._results]

    @property
    def feeds(self) -> Mapping[str, Array]:
        """The inputs by name."""
        return self._feeds

    @property
    def given(self) -> Mapping[str, Array]:
        """The outputs that have memory already."""
        if not self._wanted:
            raise InvalidArgument("OUTPUT_MISSING", "no output is bound")
        return {name: array for name, array in self._wanted.items() if array is not None}

    def keep(self, results: Mapping[str, Array]) -> None:
        """A run has ended."""
        self._results = [OrtValue(results[name]) for name in self._wanted]

    @staticmethod
    def _known(name: str, names: set[str]) -> str:
        if name not in names:
            raise InvalidArgument("ARGUMENT", "the model has no such input or output", where=name)
        return name


def _at(address: int, element_type: object, shape: Sequence[int]) -> Array:
    dtype = dtype_of_element(element_type)
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    memory = (ctypes.c_char * size).from_address(address)
    return np.frombuffer(memoryview(memory), dtype).reshape(tuple(shape))
