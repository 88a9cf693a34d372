"""How the thread pool's participants wait and wake each other, as LLVM IR templates.

Takes: the offsets, rounds and instructions that `pool.py` substitutes (`$name`).
Gives: `WAITING` (spin, then sleep) and `WAKING` (one parked worker; as many as a launch has work for), which define
internal functions.
Invariant: a worker's flag `parked` is cleared by exactly one thread, and only that one posts its semaphore. A worker
that is woken may run on the processors that its caller may use, but for the one that the caller is on.
"""

WAITING = """; Wait a moment. Gives the number of the next round: one that yields the processor counts for many.
define internal i64 @pool.pass(ptr %pool, i64 %round) nounwind {
entry:
  $pause
  %following = add i64 %round, 1
  %patient = icmp ult i64 %round, $patient_rounds
  br i1 %patient, label %end, label %look
look:
  %yieldat = getelementptr i8, ptr %pool, i64 $yield
  %yield = load ptr, ptr %yieldat
  %absent = icmp eq ptr %yield, null
  br i1 %absent, label %end, label %give
give:
  %ignored = call i32 %yield()
  %further = add i64 %round, $yield_rounds
  br label %end
end:
  %next = phi i64 [ %following, %entry ], [ %following, %look ], [ %further, %give ]
  ret i64 %next
}

; sem_wait returns early when a signal arrives: wait again
define internal void @pool.sleep(ptr %pool, ptr %semaphore) noinline nounwind {
entry:
  %waitat = getelementptr i8, ptr %pool, i64 $wait
  %wait = load ptr, ptr %waitat
  br label %loop
loop:
  %result = call i32 %wait(ptr %semaphore)
  %woken = icmp eq i32 %result, 0
  br i1 %woken, label %end, label %loop
end:
  ret void
}
"""

WAKING = """; Let a worker run on the processors that its caller may use, but for the one that the caller is on. Where
; that leaves none, the worker stays where it is.
define internal void @pool.apart(ptr %pool, ptr %record) noinline nounwind {
entry:
  %mask = alloca <16 x i64> ; of 1024 processors
  %cpuat = getelementptr i8, ptr %pool, i64 $cpu
  %getat = getelementptr i8, ptr %pool, i64 $get_affinity
  %setat = getelementptr i8, ptr %pool, i64 $set_affinity
  %current = load ptr, ptr %cpuat
  %get = load ptr, ptr %getat
  %set = load ptr, ptr %setat
  %nocurrent = icmp eq ptr %current, null
  %noget = icmp eq ptr %get, null
  %noset = icmp eq ptr %set, null
  %either = or i1 %nocurrent, %noget
  %absent = or i1 %either, %noset
  br i1 %absent, label %end, label %ask
ask:
  store <16 x i64> zeroinitializer, ptr %mask
  %cpu = call i32 %current()
  %got = call i32 %get(i32 0, i64 128, ptr %mask)
  %known = icmp eq i32 %got, 0
  %counted = icmp ult i32 %cpu, 1024
  %sane = and i1 %known, %counted
  br i1 %sane, label %leave, label %end
leave:
  %word = lshr i32 %cpu, 6
  %wordat = getelementptr i64, ptr %mask, i32 %word
  %bit = and i32 %cpu, 63
  %shift = zext i32 %bit to i64
  %own = shl i64 1, %shift
  %others = xor i64 %own, -1
  %held = load i64, ptr %wordat
  %rest = and i64 %held, %others
  store i64 %rest, ptr %wordat
  %all = load <16 x i64>, ptr %mask
  %some = call i64 @llvm.vector.reduce.or.v16i64(<16 x i64> %all)
  %nowhere = icmp eq i64 %some, 0
  br i1 %nowhere, label %end, label %move
move:
  %handleat = getelementptr i8, ptr %record, i64 $record_handle
  %handle = load i64, ptr %handleat
  %ignored = call i32 %set(i64 %handle, i64 128, ptr %mask)
  br label %end
end:
  ret void
}

; Wake a worker if it is parked; true if it was.
define internal i1 @pool.wake(ptr %pool, ptr %record) nounwind {
entry:
  %parked = getelementptr i8, ptr %record, i64 $record_parked
  %was = atomicrmw xchg ptr %parked, i32 0 seq_cst
  %sleeping = icmp eq i32 %was, 1
  br i1 %sleeping, label %post, label %end
post:
  call void @pool.apart(ptr %pool, ptr %record)
  %postat = getelementptr i8, ptr %pool, i64 $post
  %function = load ptr, ptr %postat
  %semaphore = getelementptr i8, ptr %record, i64 $record_semaphore
  %ignored = call i32 %function(ptr %semaphore)
  br label %end
end:
  ret i1 %sleeping
}

; Wake as many parked workers as there are indices beyond those that awake threads will take.
define internal void @pool.summon(ptr %pool, i64 %workers, i64 %count) nounwind {
entry:
  %records = getelementptr i8, ptr %pool, i64 $records
  %others = sub i64 %count, 1
  %wanted = call i64 @llvm.umin.i64(i64 %others, i64 %workers)
  br label %look
look:
  %number = phi i64 [ 0, %entry ], [ %following, %look ]
  %missing = phi i64 [ %wanted, %entry ], [ %fewer, %look ]
  %distance = mul i64 %number, $record_bytes
  %record = getelementptr i8, ptr %records, i64 %distance
  %parkedat = getelementptr i8, ptr %record, i64 $record_parked
  %parked = load atomic i32, ptr %parkedat seq_cst, align 4
  %awake = icmp eq i32 %parked, 0
  %one = zext i1 %awake to i64
  %fewer = sub i64 %missing, %one
  %following = add i64 %number, 1
  %more = icmp ult i64 %following, %workers
  br i1 %more, label %look, label %judge
judge:
  %enough = icmp sle i64 %fewer, 0
  br i1 %enough, label %end, label %wake
wake:
  %sleeper = phi i64 [ 0, %judge ], [ %nextsleeper, %wake ]
  %needed = phi i64 [ %fewer, %judge ], [ %stillneeded, %wake ]
  %sleeperdistance = mul i64 %sleeper, $record_bytes
  %sleeperrecord = getelementptr i8, ptr %records, i64 %sleeperdistance
  %woken = call i1 @pool.wake(ptr %pool, ptr %sleeperrecord)
  %wokencount = zext i1 %woken to i64
  %stillneeded = sub i64 %needed, %wokencount
  %nextsleeper = add i64 %sleeper, 1
  %unseen = icmp ult i64 %nextsleeper, %workers
  %hungry = icmp sgt i64 %stillneeded, 0
  %onward = and i1 %unseen, %hungry
  br i1 %onward, label %wake, label %end
end:
  ret void
}

declare i64 @llvm.umin.i64(i64, i64)

declare i64 @llvm.vector.reduce.or.v16i64(<16 x i64>)
"""
