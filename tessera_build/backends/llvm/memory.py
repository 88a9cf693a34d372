"""memcpy, memmove and memset as LLVM IR: code generation calls them, and no C library is linked.

Takes: nothing; the text fits every processor.
Gives: `MEMORY_IR`, one more unit to compile and link, and the names that it defines.
Invariant: `"no-builtins"` keeps LLVM from recognising the loops below and turning each into a call to itself.

Short copies load everything before they store anything (two overlapping pieces), so they are right for overlapping
ranges as well; long ones move 64 bytes at a time and treat one end separately, loaded before the loop begins.
"""

MEMORY_FUNCTIONS = frozenset({"memcpy", "memmove", "memset"})


def _short_copies() -> str:
    """Sizes 4 to 64: two pieces of the largest power of two that fits, which overlap in the middle."""
    blocks: list[str] = []
    for size, following in ((32, 16), (16, 8), (8, 4), (4, 1)):
        kind = f"<{size} x i8>"
        blocks.append(f"""try{size}:
  %fits{size} = icmp uge i64 %count, {size}
  br i1 %fits{size}, label %copy{size}, label %try{following}
copy{size}:
  %end{size} = sub i64 %count, {size}
  %fromend{size} = getelementptr i8, ptr %from, i64 %end{size}
  %toend{size} = getelementptr i8, ptr %to, i64 %end{size}
  %head{size} = load {kind}, ptr %from, align 1
  %tail{size} = load {kind}, ptr %fromend{size}, align 1
  store {kind} %head{size}, ptr %to, align 1
  store {kind} %tail{size}, ptr %toend{size}, align 1
  ret ptr %to
""")
    return "".join(blocks)


def _short_fills() -> str:
    blocks: list[str] = []
    for size, following in ((32, 16), (16, 8), (8, 4), (4, 1)):
        blocks.append(f"""try{size}:
  %fits{size} = icmp uge i64 %count, {size}
  br i1 %fits{size}, label %fill{size}, label %try{following}
fill{size}:
  %end{size} = sub i64 %count, {size}
  %toend{size} = getelementptr i8, ptr %to, i64 %end{size}
  %part{size} = shufflevector <64 x i8> %all, <64 x i8> poison, <{size} x i32> zeroinitializer
  store <{size} x i8> %part{size}, ptr %to, align 1
  store <{size} x i8> %part{size}, ptr %toend{size}, align 1
  ret ptr %to
""")
    return "".join(blocks)


MEMORY_IR = f"""; memcpy, memmove, memset for objects that link against nothing
define hidden ptr @memcpy(ptr %to, ptr %from, i64 %count) #0 {{
  %result = tail call ptr @memmove(ptr %to, ptr %from, i64 %count)
  ret ptr %result
}}

define hidden ptr @memmove(ptr %to, ptr %from, i64 %count) #0 {{
entry:
  %long = icmp ugt i64 %count, 64
  br i1 %long, label %longcopy, label %try32
longcopy:
  %lastoffset = sub i64 %count, 64
  %fromlast = getelementptr i8, ptr %from, i64 %lastoffset
  %tolast = getelementptr i8, ptr %to, i64 %lastoffset
  %first = load <64 x i8>, ptr %from, align 1
  %last = load <64 x i8>, ptr %fromlast, align 1
  %toaddress = ptrtoint ptr %to to i64
  %fromaddress = ptrtoint ptr %from to i64
  %distance = sub i64 %toaddress, %fromaddress
  %ascend = icmp uge i64 %distance, %count
  br i1 %ascend, label %up, label %down
up:
  %at = phi i64 [ 0, %longcopy ], [ %next, %up ]
  %fromat = getelementptr i8, ptr %from, i64 %at
  %toat = getelementptr i8, ptr %to, i64 %at
  %piece = load <64 x i8>, ptr %fromat, align 1
  store <64 x i8> %piece, ptr %toat, align 1
  %next = add i64 %at, 64
  %more = icmp ult i64 %next, %lastoffset
  br i1 %more, label %up, label %updone
updone:
  store <64 x i8> %last, ptr %tolast, align 1
  ret ptr %to
down:
  %left = phi i64 [ %count, %longcopy ], [ %start, %down ]
  %start = sub i64 %left, 64
  %fromstart = getelementptr i8, ptr %from, i64 %start
  %tostart = getelementptr i8, ptr %to, i64 %start
  %lower = load <64 x i8>, ptr %fromstart, align 1
  store <64 x i8> %lower, ptr %tostart, align 1
  %again = icmp ugt i64 %start, 64
  br i1 %again, label %down, label %downdone
downdone:
  store <64 x i8> %first, ptr %to, align 1
  ret ptr %to
{_short_copies()}try1:
  %some = icmp ne i64 %count, 0
  br i1 %some, label %copy1, label %done
copy1:
  %lastindex = sub i64 %count, 1
  %middleindex = lshr i64 %count, 1
  %frommiddle = getelementptr i8, ptr %from, i64 %middleindex
  %tomiddle = getelementptr i8, ptr %to, i64 %middleindex
  %fromfinal = getelementptr i8, ptr %from, i64 %lastindex
  %tofinal = getelementptr i8, ptr %to, i64 %lastindex
  %byte0 = load i8, ptr %from
  %byte1 = load i8, ptr %frommiddle
  %byte2 = load i8, ptr %fromfinal
  store i8 %byte0, ptr %to
  store i8 %byte1, ptr %tomiddle
  store i8 %byte2, ptr %tofinal
  br label %done
done:
  ret ptr %to
}}

define hidden ptr @memset(ptr %to, i32 %value, i64 %count) #0 {{
entry:
  %byte = trunc i32 %value to i8
  %one = insertelement <64 x i8> poison, i8 %byte, i32 0
  %all = shufflevector <64 x i8> %one, <64 x i8> poison, <64 x i32> zeroinitializer
  %long = icmp ugt i64 %count, 64
  br i1 %long, label %longfill, label %try32
longfill:
  %lastoffset = sub i64 %count, 64
  br label %up
up:
  %at = phi i64 [ 0, %longfill ], [ %next, %up ]
  %toat = getelementptr i8, ptr %to, i64 %at
  store <64 x i8> %all, ptr %toat, align 1
  %next = add i64 %at, 64
  %more = icmp ult i64 %next, %lastoffset
  br i1 %more, label %up, label %updone
updone:
  %tolast = getelementptr i8, ptr %to, i64 %lastoffset
  store <64 x i8> %all, ptr %tolast, align 1
  ret ptr %to
{_short_fills()}try1:
  %some = icmp ne i64 %count, 0
  br i1 %some, label %fill1, label %done
fill1:
  %lastindex = sub i64 %count, 1
  %middleindex = lshr i64 %count, 1
  %tomiddle = getelementptr i8, ptr %to, i64 %middleindex
  %tofinal = getelementptr i8, ptr %to, i64 %lastindex
  store i8 %byte, ptr %to
  store i8 %byte, ptr %tomiddle
  store i8 %byte, ptr %tofinal
  br label %done
done:
  ret ptr %to
}}

attributes #0 = {{ nounwind "no-builtins" }}
"""
