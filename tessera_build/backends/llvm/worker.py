"""A compile worker: the process that LLVM may end without taking the build with it.

Takes: messages on standard input: the options, and one unit's IR text.
Gives: for each, on standard output: the object and the seconds it took, or the fields of a `CompileError`.
Invariant: it imports only llvmlite and this room, and anything else that prints goes to standard error.
"""

import os
import sys
import time
from typing import IO

from tessera_build.backends.llvm.errors import CompileError
from tessera_build.backends.llvm.messages import read_message, write_message
from tessera_build.backends.llvm.objects import CodegenOptions, compile_ir


def main() -> None:
    """Serve until the input ends."""
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # LLVM may print; the results' pipe carries messages only
    while (message := read_message(sys.stdin.buffer)) is not None:
        head, text = message
        _serve(results, head, text.decode())


def _serve(results: IO[bytes], head: dict[str, object], ir_text: str) -> None:
    start = time.perf_counter()
    try:
        code = compile_ir(ir_text, _options(head))
    except CompileError as error:
        facts = {"message": error.message, "expected": error.expected, "found": error.found, "hint": error.hint}
        write_message(results, {"error": facts}, b"")
    else:
        write_message(results, {"seconds": time.perf_counter() - start}, code)


def _options(head: dict[str, object]) -> CodegenOptions:
    features = head["features"]
    if not isinstance(features, list):
        raise TypeError("features travel as a list")
    return CodegenOptions(
        triple=str(head["triple"]),
        cpu=str(head["cpu"]),
        features=tuple(str(feature) for feature in features),
        optimization=int(str(head["optimization"])),
        relocation=str(head["relocation"]),
        code_model=str(head["code_model"]),
    )


if __name__ == "__main__":
    main()
