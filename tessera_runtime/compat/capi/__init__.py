"""The place where onnxruntime keeps its exception classes."""

from tessera_runtime.compat.capi import onnxruntime_pybind11_state

__all__ = ["onnxruntime_pybind11_state"]
