"""The thread pool's launches as LLVM IR templates: the worker's loop and parallel_for.

Takes: the offsets, bits and instructions that `pool.py` substitutes (`$name`).
Gives: `SHARE`, `WORKER`, `PARALLEL_FOR`, which define internal functions and `tessera_pool_parallel_for`.
Invariant: the protocol of `pool.py`'s docstring; a job's fields are written only while no worker is inside.
"""

SHARE = """define internal void @pool.fail(ptr %pool, i64 %index, i32 %status) noinline nounwind {
entry:
  %lock = getelementptr i8, ptr %pool, i64 $failure_lock
  br label %acquire
acquire:
  %pair = cmpxchg weak ptr %lock, i32 0, i32 1 acquire monotonic
  %locked = extractvalue { i32, i1 } %pair, 1
  br i1 %locked, label %compare, label %again
again:
  $pause
  br label %acquire
compare:
  %indexat = getelementptr i8, ptr %pool, i64 $failure_index
  %lowest = load atomic i64, ptr %indexat monotonic, align 8
  %lower = icmp ult i64 %index, %lowest
  br i1 %lower, label %record, label %release
record:
  %statusat = getelementptr i8, ptr %pool, i64 $failure_status
  store atomic i64 %index, ptr %indexat monotonic, align 8
  store i32 %status, ptr %statusat
  br label %release
release:
  store atomic i32 0, ptr %lock release, align 4
  ret void
}

; Where a participant's indices are: { next, end }. The caller is number 0, workers count from 1.
define internal ptr @pool.range(ptr %pool, i64 %number) nounwind alwaysinline {
  %ranges = getelementptr i8, ptr %pool, i64 $range
  %distance = mul i64 %number, $record_bytes
  %at = getelementptr i8, ptr %ranges, i64 %distance
  ret ptr %at
}

; Run the indices of one range until none is left, or none below the lowest that failed.
define internal void @pool.run(ptr %pool, ptr %range, ptr %body, ptr %argument) nounwind {
entry:
  %endat = getelementptr i8, ptr %range, i64 8
  %failedat = getelementptr i8, ptr %pool, i64 $failure_index
  %end = load i64, ptr %endat
  br label %look
look: ; reading what another thread works on costs less than taking its line away
  %waiting = load atomic i64, ptr %range monotonic, align 8
  %some = icmp slt i64 %waiting, %end
  br i1 %some, label %take, label %done
take:
  %index = atomicrmw add ptr %range, i64 1 monotonic
  %mine = icmp slt i64 %index, %end
  %failed = load atomic i64, ptr %failedat monotonic, align 8
  %wanted = icmp ult i64 %index, %failed
  %run = and i1 %mine, %wanted
  br i1 %run, label %call, label %done
call:
  %status = call i32 %body(ptr %argument, i64 %index)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %look, label %fail
fail:
  call void @pool.fail(ptr %pool, i64 %index, i32 %status)
  br label %done
done:
  ret void
}

; Run the participant's own range, then what is left of the others'.
define internal void @pool.share(ptr %pool, i64 %number) noinline nounwind {
entry:
  %bodyat = getelementptr i8, ptr %pool, i64 $body
  %argumentat = getelementptr i8, ptr %pool, i64 $argument
  %rangesat = getelementptr i8, ptr %pool, i64 $participants
  %body = load ptr, ptr %bodyat
  %argument = load ptr, ptr %argumentat
  %ranges = load i64, ptr %rangesat
  %beyond = icmp uge i64 %number, %ranges
  %first = select i1 %beyond, i64 0, i64 %number
  br label %next
next:
  %visited = phi i64 [ 0, %entry ], [ %count, %next ]
  %at = phi i64 [ %first, %entry ], [ %following, %next ]
  %range = call ptr @pool.range(ptr %pool, i64 %at)
  call void @pool.run(ptr %pool, ptr %range, ptr %body, ptr %argument)
  %count = add i64 %visited, 1
  %further = add i64 %at, 1
  %last = icmp eq i64 %further, %ranges
  %following = select i1 %last, i64 0, i64 %further
  %more = icmp ult i64 %count, %ranges
  br i1 %more, label %next, label %end
end:
  ret void
}
"""

WORKER = """define internal ptr @pool.worker(ptr %record) nounwind {
entry:
  %oldword = call i64 @tessera.floating_point.enter()
  %poolat = getelementptr i8, ptr %record, i64 $record_pool
  %pool = load ptr, ptr %poolat
  %state = getelementptr i8, ptr %pool, i64 $state
  %semaphore = getelementptr i8, ptr %record, i64 $record_semaphore
  %parked = getelementptr i8, ptr %record, i64 $record_parked
  %numberat = getelementptr i8, ptr %record, i64 $record_number
  %number = load i64, ptr %numberat
  br label %fresh
fresh: ; `seen` is the launch that this worker entered last
  %seen = phi i64 [ 0, %entry ], [ %seen, %unpark ], [ %seen, %sleep ], [ %launch, %leave ], [ %launch, %report ]
  br label %spin
spin:
  %round = phi i64 [ 0, %fresh ], [ %nextround, %rest ], [ %round, %join ]
  %word = load atomic i64, ptr %state acquire, align 8
  %stopbit = and i64 %word, $STOP
  %stop = icmp ne i64 %stopbit, 0
  br i1 %stop, label %end, label %look
look:
  %openbit = and i64 %word, $OPEN
  %open = icmp ne i64 %openbit, 0
  %launch = lshr i64 %word, 32
  %new = icmp ne i64 %launch, %seen
  %enter = and i1 %open, %new
  br i1 %enter, label %join, label %rest
rest:
  %nextround = call i64 @pool.pass(ptr %pool, i64 %round)
  %tired = icmp uge i64 %nextround, $idle_rounds
  br i1 %tired, label %park, label %spin
join:
  %inside = add i64 %word, 1
  %pair = cmpxchg weak ptr %state, i64 %word, i64 %inside acq_rel monotonic
  %joined = extractvalue { i64, i1 } %pair, 1
  br i1 %joined, label %work, label %spin
work:
  call void @pool.share(ptr %pool, i64 %number)
  br label %leave
leave:
  %before = atomicrmw sub ptr %state, i64 1 acq_rel
  %lastmask = and i64 %before, $LAST_MASK
  %last = icmp eq i64 %lastmask, $LAST
  br i1 %last, label %report, label %fresh
report: ; the last one out wakes a caller that sleeps
  %postat = getelementptr i8, ptr %pool, i64 $post
  %post = load ptr, ptr %postat
  %done = getelementptr i8, ptr %pool, i64 $done
  %ignored = call i32 %post(ptr %done)
  br label %fresh
park:
  %claimed = atomicrmw xchg ptr %parked, i32 1 seq_cst
  %recheck = load atomic i64, ptr %state seq_cst, align 8
  %recheckstopbit = and i64 %recheck, $STOP
  %recheckstop = icmp ne i64 %recheckstopbit, 0
  %recheckopenbit = and i64 %recheck, $OPEN
  %recheckopen = icmp ne i64 %recheckopenbit, 0
  %rechecklaunch = lshr i64 %recheck, 32
  %rechecknew = icmp ne i64 %rechecklaunch, %seen
  %recheckenter = and i1 %recheckopen, %rechecknew
  %awake = or i1 %recheckstop, %recheckenter
  br i1 %awake, label %unpark, label %sleep
unpark: ; if someone was quicker to clear the flag, a post is on its way and must be taken
  %mine = atomicrmw xchg ptr %parked, i32 0 seq_cst
  %free = icmp eq i32 %mine, 1
  br i1 %free, label %fresh, label %sleep
sleep:
  call void @pool.sleep(ptr %pool, ptr %semaphore)
  br label %fresh
end:
  ret ptr null
}
"""

PARALLEL_FOR = """define internal i32 @pool.serial(ptr %body, ptr %argument, i64 %count) nounwind {
entry:
  br label %test
test:
  %index = phi i64 [ 0, %entry ], [ %following, %run ]
  %left = icmp slt i64 %index, %count
  br i1 %left, label %run, label %good
run:
  %status = call i32 %body(ptr %argument, i64 %index)
  %following = add i64 %index, 1
  %fine = icmp eq i32 %status, 0
  br i1 %fine, label %test, label %bad
good:
  ret i32 0
bad:
  ret i32 %status
}

; Give each participant a range, of one length or one index longer; the same ones for the same count, so that what a
; thread wrote in one launch it mostly reads in the next.
define internal void @pool.divide(ptr %pool, i64 %workers, i64 %count) nounwind {
entry:
  %rangesat = getelementptr i8, ptr %pool, i64 $participants
  %threads = add i64 %workers, 1
  %ranges = call i64 @llvm.umin.i64(i64 %threads, i64 %count)
  store i64 %ranges, ptr %rangesat
  %length = udiv i64 %count, %ranges
  %rest = urem i64 %count, %ranges
  br label %give
give:
  %number = phi i64 [ 0, %entry ], [ %following, %give ]
  %begin = phi i64 [ 0, %entry ], [ %end, %give ]
  %range = call ptr @pool.range(ptr %pool, i64 %number)
  %endat = getelementptr i8, ptr %range, i64 8
  %longer = icmp ult i64 %number, %rest
  %extra = zext i1 %longer to i64
  %whole = add i64 %length, %extra
  %end = add i64 %begin, %whole
  store atomic i64 %begin, ptr %range monotonic, align 8
  store i64 %end, ptr %endat
  %following = add i64 %number, 1
  %more = icmp ult i64 %following, %ranges
  br i1 %more, label %give, label %done
done:
  ret void
}

; Close the launch and return when no worker is inside.
define internal void @pool.finish(ptr %pool) nounwind {
entry:
  %state = getelementptr i8, ptr %pool, i64 $state
  %closing = atomicrmw and ptr %state, i64 $CLOSED acq_rel
  %inside = and i64 %closing, $ACTIVE
  %alone = icmp eq i64 %inside, 0
  br i1 %alone, label %end, label %spin
spin:
  %round = phi i64 [ 0, %entry ], [ %nextround, %rest ]
  %word = load atomic i64, ptr %state acquire, align 8
  %active = and i64 %word, $ACTIVE
  %empty = icmp eq i64 %active, 0
  br i1 %empty, label %end, label %rest
rest:
  %nextround = call i64 @pool.pass(ptr %pool, i64 %round)
  %tired = icmp uge i64 %nextround, $finish_rounds
  br i1 %tired, label %announce, label %spin
announce:
  %last = atomicrmw or ptr %state, i64 $WAITING acq_rel
  %remaining = and i64 %last, $ACTIVE
  %none = icmp eq i64 %remaining, 0
  br i1 %none, label %end, label %sleep
sleep:
  %done = getelementptr i8, ptr %pool, i64 $done
  call void @pool.sleep(ptr %pool, ptr %done)
  br label %end
end:
  ret void
}

define i32 @tessera_pool_parallel_for(ptr %pool, ptr %body, ptr %argument, i64 %count) nounwind {
entry:
  %workersat = getelementptr i8, ptr %pool, i64 $workers
  %workers = load i64, ptr %workersat
  %helped = icmp ne i64 %workers, 0
  %several = icmp sgt i64 %count, 1
  %worthwhile = and i1 %helped, %several
  br i1 %worthwhile, label %try, label %alone
try:
  %busy = getelementptr i8, ptr %pool, i64 $busy
  %taken = load atomic i32, ptr %busy monotonic, align 4
  %idle = icmp eq i32 %taken, 0
  br i1 %idle, label %lock, label %alone
lock:
  %pair = cmpxchg ptr %busy, i32 0, i32 1 acquire monotonic
  %locked = extractvalue { i32, i1 } %pair, 1
  br i1 %locked, label %launch, label %alone
launch:
  %bodyat = getelementptr i8, ptr %pool, i64 $body
  %argumentat = getelementptr i8, ptr %pool, i64 $argument
  %statusat = getelementptr i8, ptr %pool, i64 $failure_status
  %indexat = getelementptr i8, ptr %pool, i64 $failure_index
  %state = getelementptr i8, ptr %pool, i64 $state
  store ptr %body, ptr %bodyat
  store ptr %argument, ptr %argumentat
  call void @pool.divide(ptr %pool, i64 %workers, i64 %count)
  store i32 0, ptr %statusat
  store atomic i64 -1, ptr %indexat monotonic, align 8
  %old = load atomic i64, ptr %state monotonic, align 8
  %number = lshr i64 %old, 32
  %shifted = shl i64 %number, 32
  %following = add i64 %shifted, $LAUNCH
  %opened = or i64 %following, $OPEN
  %previous = atomicrmw xchg ptr %state, i64 %opened seq_cst
  call void @pool.summon(ptr %pool, i64 %workers, i64 %count)
  call void @pool.share(ptr %pool, i64 0)
  call void @pool.finish(ptr %pool)
  %status = load i32, ptr %statusat
  store atomic i32 0, ptr %busy release, align 4
  ret i32 %status
alone:
  %serial = call i32 @pool.serial(ptr %body, ptr %argument, i64 %count)
  ret i32 %serial
}
"""
