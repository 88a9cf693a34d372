"""The LLVM back end: x86-64 and AArch64 code for CPU variants. The only room that imports llvmlite.

Takes: Target IR, and the names of a processor and its features.
Gives: one shared object a variant, made by our own linker, that needs no library at all.
Invariant: for a named target the bytes are the same on every machine.
"""
