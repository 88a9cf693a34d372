"""The fixed part of a host program as LLVM IR text: error records, one launch, sizes from data and their memory.

Takes nothing; gives text that `emit_host` puts beside the part of one variant. Invariant: the offsets are those of
`tessera_model.h`; a table with a NULL where it must not be is refused, never followed.
"""

from __future__ import annotations

from bundle_format.abi import Status

CALL_BYTES = 64  # of callers that know no outputs of unknown size
DYNAMIC_CALL_BYTES = 72
CALL = {
    "entry": 4,
    "dims": 8,
    "inputs": 16,
    "weights": 24,
    "outputs": 32,
    "workspace": 40,
    "services": 48,
    "error": 56,
    "output_shapes": 64,
}
# No extent is larger than an address space; it also keeps products of extents within what saturation can tell apart.
LARGEST = 1 << 47
PLAN = {"workspace_bytes": 0, "output_shapes": 8}


def fail(
    status: str,
    node: str,
    values: tuple[str, str, str] = ("0", "0", "0"),
    names: tuple[str, str] = ("%failed", "%error"),
) -> str:
    """The call that fills the error record; `names` are those of its result, the status, and of the record."""
    first, second, third = values
    result, error = names
    return f"{result} = call i32 @fail(ptr {error}, {status}, i32 {node}, i64 {first}, i64 {second}, i64 {third})"


SUPPORT = f"""define internal i32 @fail(ptr %error, i32 %status, i32 %node, i64 %a, i64 %b, i64 %c) noinline cold #0 {{
  %absent = icmp eq ptr %error, null
  br i1 %absent, label %done, label %write
write:
  store i32 %status, ptr %error, align 4
  %node.at = getelementptr i8, ptr %error, i64 4
  store i32 %node, ptr %node.at, align 4
  %a.at = getelementptr i8, ptr %error, i64 8
  store i64 %a, ptr %a.at, align 8
  %b.at = getelementptr i8, ptr %error, i64 16
  store i64 %b, ptr %b.at, align 8
  %c.at = getelementptr i8, ptr %error, i64 24
  store i64 %c, ptr %c.at, align 8
  %d.at = getelementptr i8, ptr %error, i64 32
  store i64 0, ptr %d.at, align 8
  br label %done
done:
  ret i32 %status
}}

define internal void @copy(ptr %to, ptr %from, i64 %bytes) noinline #0 {{
entry:
  %same = icmp eq ptr %to, %from
  br i1 %same, label %done, label %wide
wide:
  %at = phi i64 [ 0, %entry ], [ %further, %move ]
  %further = add i64 %at, 16
  %fits = icmp sle i64 %further, %bytes
  br i1 %fits, label %move, label %narrow
move:
  %source = getelementptr i8, ptr %from, i64 %at
  %target = getelementptr i8, ptr %to, i64 %at
  %vector = load <16 x i8>, ptr %source, align 1
  store <16 x i8> %vector, ptr %target, align 1
  br label %wide
narrow:
  %byte = phi i64 [ %at, %wide ], [ %after, %one ]
  %left = icmp slt i64 %byte, %bytes
  br i1 %left, label %one, label %done
one:
  %one.source = getelementptr i8, ptr %from, i64 %byte
  %one.target = getelementptr i8, ptr %to, i64 %byte
  %value = load i8, ptr %one.source, align 1
  store i8 %value, ptr %one.target, align 1
  %after = add i64 %byte, 1
  br label %narrow
done:
  ret void
}}

define internal i32 @launch(ptr %call, ptr %kernel, ptr %arguments, i64 %count, i32 %number, i32 %node) noinline #0 {{
  %services.at = getelementptr i8, ptr %call, i64 {CALL["services"]}
  %services = load ptr, ptr %services.at, align 8
  %error.at = getelementptr i8, ptr %call, i64 {CALL["error"]}
  %error = load ptr, ptr %error.at, align 8
  %cancel.at = getelementptr i8, ptr %services, i64 88
  %cancel = load ptr, ptr %cancel.at, align 8
  %nocancel = icmp eq ptr %cancel, null
  br i1 %nocancel, label %begin, label %ask
ask:
  %flag = load volatile i32, ptr %cancel, align 4
  %stop = icmp ne i32 %flag, 0
  br i1 %stop, label %cancelled, label %begin
cancelled:
  %c = call i32 @fail(ptr %error, i32 {int(Status.CANCELLED)}, i32 %node, i64 0, i64 0, i64 0)
  ret i32 %c
begin:
  %context.at = getelementptr i8, ptr %services, i64 8
  %context = load ptr, ptr %context.at, align 8
  %profile.at = getelementptr i8, ptr %services, i64 80
  %profile = load ptr, ptr %profile.at, align 8
  %silent = icmp eq ptr %profile, null
  br i1 %silent, label %choose, label %before
before:
  call void %profile(ptr %context, i32 %number, i32 0)
  br label %choose
choose:
  %none = icmp sle i64 %count, 0
  br i1 %none, label %ran, label %some
some:
  %alone = icmp eq i64 %count, 1
  br i1 %alone, label %one, label %many
one:
  %single = call i32 %kernel(ptr %arguments, i64 0)
  br label %ran
many:
  %for.at = getelementptr i8, ptr %services, i64 32
  %for = load ptr, ptr %for.at, align 8
  %several = call i32 %for(ptr %context, ptr %kernel, ptr %arguments, i64 %count)
  br label %ran
ran:
  %status = phi i32 [ 0, %choose ], [ %single, %one ], [ %several, %many ]
  br i1 %silent, label %check, label %after
after:
  call void %profile(ptr %context, i32 %number, i32 1)
  br label %check
check:
  %bad = icmp ne i32 %status, 0
  br i1 %bad, label %failed, label %good
failed:
  %f = call i32 @fail(ptr %error, i32 %status, i32 %node, i64 0, i64 0, i64 0)
  ret i32 %f
good:
  ret i32 0
}}

define internal i32 @size(ptr %error, i64 %value, i64 %upper, i32 %node) noinline #0 {{
  %below = icmp slt i64 %value, 0
  %above = icmp sgt i64 %value, %upper
  %bad = or i1 %below, %above
  br i1 %bad, label %refuse, label %good
refuse:
  %f = call i32 @fail(ptr %error, i32 {int(Status.SIZE_BEYOND_BOUND)}, i32 %node, i64 %value, i64 %upper, i64 0)
  ret i32 %f
good:
  ret i32 0
}}

define internal i32 @allocate(ptr %call, ptr %at, i64 %bytes, i32 %node) noinline #0 {{
  call void @drop(ptr %call, ptr %at)
  %huge = icmp ugt i64 %bytes, {LARGEST}
  br i1 %huge, label %none, label %ask
ask:
  %services.at = getelementptr i8, ptr %call, i64 {CALL["services"]}
  %services = load ptr, ptr %services.at, align 8
  %context.at = getelementptr i8, ptr %services, i64 8
  %context = load ptr, ptr %context.at, align 8
  %allocate.at = getelementptr i8, ptr %services, i64 16
  %take = load ptr, ptr %allocate.at, align 8
  %empty = icmp eq i64 %bytes, 0
  %wanted = select i1 %empty, i64 1, i64 %bytes
  %memory = call ptr %take(ptr %context, i64 %wanted, i64 64)
  store ptr %memory, ptr %at, align 8
  %refused = icmp eq ptr %memory, null
  br i1 %refused, label %none, label %good
none:
  %error.at = getelementptr i8, ptr %call, i64 {CALL["error"]}
  %error = load ptr, ptr %error.at, align 8
  %f = call i32 @fail(ptr %error, i32 {int(Status.OUT_OF_MEMORY)}, i32 %node, i64 %bytes, i64 0, i64 0)
  ret i32 %f
good:
  ret i32 0
}}

define internal void @drop(ptr %call, ptr %at) noinline #0 {{
  %held = load ptr, ptr %at, align 8
  %empty = icmp eq ptr %held, null
  br i1 %empty, label %done, label %give
give:
  store ptr null, ptr %at, align 8
  %services.at = getelementptr i8, ptr %call, i64 {CALL["services"]}
  %services = load ptr, ptr %services.at, align 8
  %context.at = getelementptr i8, ptr %services, i64 8
  %context = load ptr, ptr %context.at, align 8
  %release.at = getelementptr i8, ptr %services, i64 24
  %put = load ptr, ptr %release.at, align 8
  call void %put(ptr %context, ptr %held)
  br label %done
done:
  ret void
}}
"""
