"""Numerical proof of a build: what was made is run and compared with onnxruntime and with the Graph reference.

Takes: the module before and after the graph passes, the lowered variant and its code.
Gives: a `Proof`, or a `VerificationError` that names the operator whose answer is wrong.
Invariant: nothing here changes a bundle's bytes; the only room that imports onnxruntime.
"""
