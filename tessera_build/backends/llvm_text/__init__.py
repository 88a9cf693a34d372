"""LLVM IR as text, for every back end that goes through LLVM: types, one function's lines, operations, structure."""
