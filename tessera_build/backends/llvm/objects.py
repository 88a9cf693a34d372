"""LLVM IR text in, one relocatable object (or its assembly) out.

Takes: IR text and `CodegenOptions`; needs nothing but llvmlite, so that a compile worker starts quickly.
Gives: `compile_ir`, `assembly`, `native_options`.
Invariant: the bytes depend on the text, the options and LLVM's version only, never on this machine (`native_options`
alone looks at it). The object calls nothing that the text did not declare, except memcpy, memset and memmove.
"""

import re
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache

import llvmlite
import llvmlite.binding as llvm

from tessera_build.backends.llvm.errors import CompileError
from tessera_build.backends.llvm.half import HALF_FUNCTIONS
from tessera_build.backends.llvm.linker import elf
from tessera_build.backends.llvm.linker.reader import read_object
from tessera_build.backends.llvm.memory import MEMORY_FUNCTIONS
from tessera_build.backends.llvm.target_names import KNOWN, check_names

_COMBINE_OFF = "--disable-vector-combine"
_ATTRIBUTE = re.compile(r'"target-(cpu|features)"\s*=\s*"([^"]*)"')


@dataclass(frozen=True, slots=True)
class CodegenOptions:
    """One machine and how to compile for it. `features` are LLVM's, each with its sign: `("+avx512f",)`."""

    triple: str
    cpu: str = "generic"
    features: tuple[str, ...] = ()
    optimization: int = 2
    relocation: str = "pic"
    code_model: str = "small"

    @property
    def architecture(self) -> str:
        """The first word of the triple: `x86_64` or `aarch64`."""
        return self.triple.partition("-")[0]

    def check(self) -> None:
        """Raise `CompileError` on anything that LLVM would ignore in silence or end the process for."""
        check_names(self.architecture, self.cpu, self.features)
        if "-linux" not in self.triple:
            raise CompileError("only Linux triples are compiled", expected="…-linux-gnu", found=self.triple)
        if self.optimization not in (0, 1, 2, 3):
            raise CompileError("unknown optimisation level", expected="0, 1, 2 or 3", found=str(self.optimization))
        if (self.relocation, self.code_model) != ("pic", "small"):
            raise CompileError(
                "shared objects need position-independent code of the small model",
                expected="pic, small",
                found=f"{self.relocation}, {self.code_model}",
            )


def native_options(optimization: int = 2) -> CodegenOptions:
    """The machine that this process runs on. The result names a machine: it is not the same on another one."""
    _initialize()
    architecture = llvm.get_default_triple().partition("-")[0]
    known = KNOWN.get(architecture)
    if known is None:
        raise CompileError("this machine's processor is not one we compile for", found=architecture)
    processor = llvm.get_host_cpu_name()
    features = llvm.get_host_cpu_features()
    return CodegenOptions(
        triple=f"{architecture}-unknown-linux-gnu",
        cpu=processor if processor in known.processors else "generic",
        features=tuple(
            ("+" if present else "-") + name for name, present in sorted(features.items()) if name in known.features
        ),
        optimization=optimization,
    )


def llvm_version() -> str:
    """The versions that the bytes depend on, for cache keys and the bundle's record of tools."""
    return f"llvmlite {llvmlite.__version__}, LLVM {'.'.join(str(part) for part in llvm.llvm_version_info)}"


def compile_ir(ir_text: str, machine: CodegenOptions) -> bytes:
    """Parse, verify, optimise and compile `ir_text`; returns an ELF64 relocatable object.

    Raises `CompileError`: unknown processor or feature names, text that LLVM refuses, calls to library functions that
    code generation introduced (an `llvm.exp` intrinsic, say). Names that the text itself declares stay undefined for
    the linker. LLVM ends the process on some faults; `compile_pool` runs this in workers for that reason.
    """
    with _optimised(ir_text, machine) as (module, target_machine):
        declared = {item.name for item in (*module.functions, *module.global_variables)}
        code = target_machine.emit_object(module)
    _refuse_library_calls(code, declared)
    return code


def assembly(ir_text: str, machine: CodegenOptions) -> str:
    """The text of what `compile_ir` encodes, for people."""
    with _optimised(ir_text, machine) as (module, target_machine):
        return target_machine.emit_assembly(module)


@contextmanager
def _optimised(ir_text: str, machine: CodegenOptions) -> Generator[tuple[llvm.ModuleRef, llvm.TargetMachine]]:
    """The module after the O-pipeline, with the machine to emit it for; what LLVM refuses becomes `CompileError`."""
    machine.check()
    _check_attributes(ir_text, machine)
    _initialize()
    try:
        # Closed here in reverse order: were it left to the garbage collector, an error's traceback would make a cycle
        # of them, and LLVM crashes when a context goes before its module.
        with ExitStack() as stack:
            target_machine = stack.enter_context(
                llvm.Target.from_triple(machine.triple).create_target_machine(
                    cpu=machine.cpu,
                    features=",".join(machine.features),
                    opt=machine.optimization,
                    reloc=machine.relocation,
                    codemodel=machine.code_model,
                )
            )
            # A context of its own: the global one keeps every type ever parsed and is not safe for threads.
            context = stack.enter_context(llvm.create_context())
            module = stack.enter_context(llvm.parse_assembly(ir_text, context=context))
            module.triple = machine.triple
            module.data_layout = str(target_machine.target_data)
            module.verify()
            _optimise(module, target_machine, machine.optimization)
            yield module, target_machine
    except RuntimeError as error:
        raise CompileError("LLVM refuses the IR text", found=" ".join(str(error).split())) from error


def _optimise(module: llvm.ModuleRef, target_machine: llvm.TargetMachine, level: int) -> None:
    with ExitStack() as stack:
        tuning = stack.enter_context(llvm.create_pipeline_tuning_options(speed_level=level))
        tuning.loop_vectorization = False  # the text has explicit vectors; LLVM's own only add code, change rounding
        tuning.slp_vectorization = False
        builder = stack.enter_context(llvm.create_pass_builder(target_machine, tuning))
        manager = stack.enter_context(builder.getModulePassManager())
        # It took a quarter of the time and changed no byte of 238 kernels measured. Options hold for the process, in
        # which someone else may compile: the default comes back.
        llvm.set_option("tessera", f"{_COMBINE_OFF}=true")
        stack.callback(llvm.set_option, "tessera", f"{_COMBINE_OFF}=false")
        manager.run(module, builder)


def _check_attributes(ir_text: str, machine: CodegenOptions) -> None:
    """Function attributes name processors and features too, and LLVM treats them no more kindly."""
    for kind, value in set(_ATTRIBUTE.findall(ir_text)):
        if kind == "cpu":
            check_names(machine.architecture, value, ())
        else:
            check_names(machine.architecture, machine.cpu, [name for name in value.split(",") if name])


def _refuse_library_calls(code: bytes, declared: set[str]) -> None:
    symbols = read_object(code, 0).symbols
    undefined = {symbol.name for symbol in symbols if symbol.name and symbol.section == elf.SHN_UNDEF}
    calls = sorted(undefined - declared - MEMORY_FUNCTIONS - HALF_FUNCTIONS)
    if calls:
        raise CompileError(
            "code generation needs library functions that a self-contained object does not have",
            found=", ".join(calls),
            hint="write the operation out in IR; no C library is linked",
        )


@cache
def _initialize() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()  # inline assembly to objects; only x86's parser is linked into llvmlite
