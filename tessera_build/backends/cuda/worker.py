"""The process in which LLVM makes PTX, run as `python -m` by `ptx.py`.

Takes LLVM IR text on standard input, processor and features as arguments; gives PTX on standard output. Invariant: an
error that ends this process ends no other.
"""

from __future__ import annotations

import sys

import llvmlite.binding as llvm

from tessera_build.backends.cuda.dialect import TRIPLE


def assemble(ir_text: str, processor: str, features: str) -> str:
    """PTX of one module, optimised at level 2 without vectorisers: the text already says what each lane does."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(TRIPLE).create_target_machine(cpu=processor, features=features, opt=2)
    module = llvm.parse_assembly(ir_text)
    module.data_layout = str(machine.target_data)
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_vectorization = False
    tuning.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    return machine.emit_assembly(module)


if __name__ == "__main__":
    sys.stdout.write(assemble(sys.stdin.read(), sys.argv[1], sys.argv[2]))
