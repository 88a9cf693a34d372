"""One kernel of Target IR as LLVM IR text.

Takes a `Function` of the kernel grammar (arguments: buffers, i64 dims, the i64 index of the parallel iteration) and
the name to export; gives a module whose `i32 @name(ptr arguments, i64 index)` reads the buffers' addresses and the
dims from an array of 8-byte slots. Invariant: the text depends on the function's structure only, not on its value
numbers. Within one launch, a buffer that the kernel writes must not overlap another one.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.backends.llvm.emit_memory import (
    emit_alloca,
    emit_gather,
    emit_load,
    emit_prefetch,
    emit_scatter,
    emit_store,
)
from tessera_build.backends.llvm.emit_ops import emit_operation
from tessera_build.backends.llvm.errors import CompileError
from tessera_build.backends.llvm.function_text import FunctionText
from tessera_build.backends.llvm.objects import CodegenOptions
from tessera_build.backends.llvm.types import (
    Value,
    constant,
    element_type,
    lanes_of,
    register_type,
    scalar_constant,
    with_dtype,
)
from tessera_build.ir.core.node import Function, Node, Region
from tessera_build.ir.core.types import I32, I64, Type, scalar
from tessera_build.ir.target.kernel import (
    Alloca,
    Branch,
    Check,
    Const,
    Extract,
    Gather,
    Insert,
    LaneIndex,
    Load,
    Loop,
    Op,
    Prefetch,
    Scatter,
    Shuffle,
    Splat,
    Store,
)

# Loop idioms would otherwise become calls of memcpy and memset, slower than the vectors that the schedule chose.
_ATTRIBUTES = 'nounwind "no-builtins" "frame-pointer"="none"'


def kernel_ir(function: Function, options: CodegenOptions, name: str | None = None) -> str:
    """The module of one kernel; its symbol is `name`, or else the function's own name."""
    symbol = name or function.name
    writer = _KernelWriter(function.types)
    parameters = writer.parameters(function)
    writer.block(function.nodes)
    writer.out.line("ret i32 0")
    width = ' "prefer-vector-width"="512"' if options.architecture == "x86_64" else ""
    out = writer.out
    return (
        f'target triple = "{options.triple}"\n'
        f"define internal i32 @body({', '.join(parameters)}) noinline #0 {{\n{out.body()}\n}}\n"
        f"{_entry_point(symbol, function)}"
        f"{out.declarations()}"
        f"attributes #0 = {{ {_ATTRIBUTES}{width} }}\n"
        f"{out.metadata()}"
    )


def _entry_point(symbol: str, function: Function) -> str:
    """The exported function: loads the arguments and calls the body, whose `noalias` parameters LLVM can rely on."""
    lines: list[str] = []
    arguments: list[str] = []
    for position, argument in enumerate(function.args[:-1]):
        kind = register_type(function.types[argument])
        lines.append(f"  %p{position} = getelementptr i64, ptr %arguments, i64 {position}")
        lines.append(f"  %a{position} = load {kind}, ptr %p{position}, align 8")
        arguments.append(f"{kind} %a{position}")
    call = f"  %status = call i32 @body({', '.join([*arguments, 'i64 %index'])})"
    body = "\n".join([*lines, call, "  ret i32 %status"])
    return f"define i32 @{symbol}(ptr readonly %arguments, i64 %index) #0 {{\n{body}\n}}\n"


class _KernelWriter:
    """Walks the nodes; `values` maps value ids to what they became."""

    def __init__(self, types: Mapping[int, Type]) -> None:
        self.out = FunctionText()
        self.types = types
        self.values: dict[int, Value] = {}

    def parameters(self, function: Function) -> list[str]:
        """Bind the function's arguments; gives the parameter list of the body."""
        texts: list[str] = []
        for argument in function.args:
            value = Value(self.out.name(), self.types[argument])
            self.values[argument] = value
            texts.append(f"ptr noalias {value.text}" if value.type.container == "memref" else value.typed)
        return texts

    def block(self, nodes: tuple[Node, ...]) -> None:
        """Write nodes in order."""
        for node in nodes:
            self.node(node)

    def node(self, node: Node) -> None:
        """Write one node, and remember its result."""
        match node:
            case Loop():
                self.loop(node)
            case Branch():
                self.branch(node)
            case Check():
                self.check(node)
            case Store():
                emit_store(self.out, self.values, node)
            case Scatter():
                emit_scatter(self.out, self.values, node)
            case Prefetch():
                emit_prefetch(self.out, self.values, node)
            case _:
                self.pure(node)

    def pure(self, node: Node) -> None:
        """A node with one result."""
        out, values = self.out, self.values
        match node:
            case Const():
                values[node.result] = constant(self.types[node.result], node.value)
            case Op():
                operands = tuple(values[operand] for operand in node.operands)
                values[node.result] = emit_operation(out, node.name, operands, self.types[node.result])
            case Load():
                values[node.result] = emit_load(out, values, node, self.types[node.result])
            case Gather():
                values[node.result] = emit_gather(out, values, node, self.types[node.result])
            case Alloca():
                values[node.result] = emit_alloca(out, node, self.types[node.result])
            case LaneIndex():
                values[node.result] = _lane_index(self.types[node.result])
            case Splat() | Extract() | Insert() | Shuffle():
                values[node.result] = self.lanes(node)
            case _:
                raise CompileError("a node that kernels do not have", found=type(node).__name__)

    def lanes(self, node: Splat | Extract | Insert | Shuffle) -> Value:
        """Movement between lanes."""
        type_ = self.types[node.result]
        match node:
            case Splat():
                return self.splat(self.values[node.operand], type_)
            case Extract():
                text = f"extractelement {self.values[node.operand].typed}, i64 {node.lane}"
            case Insert():
                vector, value = self.values[node.operand], self.values[node.value]
                text = f"insertelement {vector.typed}, {value.typed}, i64 {node.lane}"
            case Shuffle():
                left, right = self.values[node.left], self.values[node.right]
                lanes = ", ".join(f"i32 {lane}" for lane in node.lanes)
                text = f"shufflevector {left.typed}, {right.typed}, <{len(node.lanes)} x i32> <{lanes}>"
        return self.out.instruction(text, type_)

    def splat(self, value: Value, type_: Type) -> Value:
        """A scalar in every lane; a constant stays a constant."""
        if not value.text.startswith("%"):
            return Value(f"splat ({value.typed})", type_)
        vector, count = register_type(type_), lanes_of(type_)
        single = self.out.temporary(f"insertelement {vector} poison, {value.typed}, i64 0")
        mask = f"<{count} x i32> zeroinitializer"
        return self.out.instruction(f"shufflevector {vector} {single}, {vector} poison, {mask}", type_)

    def loop(self, node: Loop) -> None:
        """Head with the phis, body, exit; the results are the phis, which hold after the last iteration."""
        out = self.out
        head, body, after = out.label("head"), out.label("loop"), out.label("after")
        start, stop, before = self.values[node.start], self.values[node.stop], out.block
        initial = [self.values[value] for value in node.carried]
        out.line(f"br label %{head}")
        out.begin(head)
        phis = [out.phi(value.type, (value, before)) for value in (start, *initial)]
        index = phis[0][0]
        more = out.temporary(f"icmp slt i64 {index.text}, {stop.text}")
        out.line(f"br i1 {more}, label %{body}, label %{after}")
        out.begin(body)
        self.values.update(zip(node.body.args, (value for value, _ in phis), strict=True))
        self.block(node.body.nodes)
        following = out.instruction(f"add nsw i64 {index.text}, {node.step}", scalar(I64))
        carried = [self.values[value] for value in node.body.results]
        for (_, position), value in zip(phis, (following, *carried), strict=True):
            out.close_phi(position, value)
        out.line(f"br label %{head}, !llvm.loop {out.loop_metadata()}")
        out.begin(after)
        self.values.update(zip(node.results, (value for value, _ in phis[1:]), strict=True))

    def branch(self, node: Branch) -> None:
        """Two blocks that meet again; results are phis there."""
        out = self.out
        then, otherwise, join = out.label("then"), out.label("else"), out.label("join")
        out.line(f"br {self.values[node.condition].typed}, label %{then}, label %{otherwise}")
        left = self._arm(then, node.then, join)
        right = self._arm(otherwise, node.otherwise, join)
        out.begin(join)
        for position, result in enumerate(node.results):
            type_ = self.types[result]
            edges = ", ".join(f"[ {values[position].text}, %{block} ]" for values, block in (left, right))
            self.values[result] = out.instruction(f"phi {register_type(type_)} {edges}", type_)

    def _arm(self, label: str, region: Region, join: str) -> tuple[list[Value], str]:
        self.out.begin(label)
        self.block(region.nodes)
        ends = self.out.block
        self.out.line(f"br label %{join}")
        return [self.values[value] for value in region.results], ends

    def check(self, node: Check) -> None:
        """Leave the kernel with the code unless the condition holds; marked as unlikely."""
        out = self.out
        good = out.label("good")
        code = constant(scalar(I32), node.code)
        failed = out.tail(f"failed{node.code}", f"ret {code.typed}")
        weights = out.shared_metadata('!{!"branch_weights", i32 1048576, i32 1}')
        condition = self.values[node.condition].typed
        out.line(f"br {condition}, label %{good}, label %{failed}, !prof {weights}")
        out.begin(good)


def _lane_index(type_: Type) -> Value:
    element = element_type(type_.dtype)
    lanes = ", ".join(f"{element} {scalar_constant(type_.dtype, lane)}" for lane in range(lanes_of(type_)))
    return Value(f"<{lanes}>", with_dtype(type_, type_.dtype))
