"""NVIDIA: kernels of groups as PTX by LLVM, and as cubins by NVIDIA's own assembler where its wheel is installed."""
