"""Machine code for measurements: how a kernel's iterations are run one after the other.

Takes nothing; gives LLVM IR. Invariant: what is timed is the compiled function alone — loops run in machine code.
"""

from __future__ import annotations

# Runs a kernel's parallel iterations one after the other, as a launch on one thread does.
LAUNCH_IR = """
declare i32 @kernel(ptr, i64)
define i32 @launch(ptr %arguments, i64 %count) {
entry:
  br label %head
head:
  %index = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp slt i64 %index, %count
  br i1 %more, label %body, label %done
body:
  %status = call i32 @kernel(ptr %arguments, i64 %index)
  %next = add i64 %index, 1
  br label %head
done:
  ret i32 0
}
"""
