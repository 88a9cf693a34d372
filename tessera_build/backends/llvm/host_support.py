"""The fixed part of a host program as LLVM IR text: error records, one launch, and the status codes of the C ABI.

Takes nothing; gives text that `emit_host` puts beside the part of one variant. Invariant: the offsets are those of
`tessera_model.h`; a table with a NULL where it must not be is refused, never followed.
"""

from __future__ import annotations

from bundle_format.abi import Status

CALL_BYTES = 64
CALL = {"entry": 4, "dims": 8, "inputs": 16, "weights": 24, "outputs": 32, "workspace": 40, "services": 48, "error": 56}
PLAN = {"workspace_bytes": 0, "output_shapes": 8}

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
"""
