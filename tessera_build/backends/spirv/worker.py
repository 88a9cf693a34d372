"""The process in which LLVM makes one SPIR-V module, run as `python -m` by `emit.py`.

Takes LLVM IR text on standard input and a triple as argument; gives the module on standard output. Invariant: one
module a process (see `llvm_text/child.py`).
"""

from __future__ import annotations

import sys

import llvmlite.binding as llvm


def assemble(ir_text: str, triple: str) -> bytes:
    """The module, not optimised here: the consumer's compiler knows its machine."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(opt=2)
    module = llvm.parse_assembly(ir_text)
    module.verify()
    return machine.emit_object(module)


if __name__ == "__main__":
    sys.stdout.buffer.write(assemble(sys.stdin.read(), sys.argv[1]))
