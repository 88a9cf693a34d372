"""SPIR-V for OpenCL: kernels of groups as binary modules that any OpenCL 2 device takes."""
