"""The thread pool's beginning and end as LLVM IR templates.

Takes: the offsets that `pool.py` substitutes (`$name`).
Gives: `CREATE` and `DESTROY`, which define `tessera_pool_create` and `tessera_pool_destroy`.
Invariant: create either starts every worker asked for or leaves nothing behind; destroy returns after the last worker
has ended, and must not run beside a parallel_for of the same pool.
"""

CREATE = """define ptr @tessera_pool_create(ptr %services, i32 %threads) nounwind {
entry:
  %size = load i32, ptr %services
  %whole = icmp uge i32 %size, 96
  %enough = icmp sge i32 %threads, 1
  %few = icmp sle i32 %threads, $most
  %sane = and i1 %enough, %few
  %allocateat = getelementptr i8, ptr %services, i64 16
  %allocate = load ptr, ptr %allocateat
  %given = icmp ne ptr %allocate, null
  %usable = and i1 %whole, %given
  %valid = and i1 %usable, %sane
  br i1 %valid, label %reserve, label %refuse
reserve:
  %fewer = sub i32 %threads, 1
  %workers = zext i32 %fewer to i64
  %recordbytes = mul i64 %workers, $record_bytes
  %bytes = add i64 %recordbytes, $records
  %contextat = getelementptr i8, ptr %services, i64 8
  %context = load ptr, ptr %contextat
  %pool = call ptr %allocate(ptr %context, i64 %bytes, i64 128)
  %none = icmp eq ptr %pool, null
  br i1 %none, label %refuse, label %fill
fill:
  %createat = getelementptr i8, ptr %services, i64 40
  %initat = getelementptr i8, ptr %services, i64 56
  %waitat = getelementptr i8, ptr %services, i64 64
  %postat = getelementptr i8, ptr %services, i64 72
  %create = load ptr, ptr %createat
  %init = load ptr, ptr %initat
  %wait = load ptr, ptr %waitat
  %post = load ptr, ptr %postat
  %ownwait = getelementptr i8, ptr %pool, i64 $wait
  %ownpost = getelementptr i8, ptr %pool, i64 $post
  %started = getelementptr i8, ptr %pool, i64 $workers
  %busy = getelementptr i8, ptr %pool, i64 $busy
  %state = getelementptr i8, ptr %pool, i64 $state
  %lock = getelementptr i8, ptr %pool, i64 $failure_lock
  %done = getelementptr i8, ptr %pool, i64 $done
  %records = getelementptr i8, ptr %pool, i64 $records
  store ptr %wait, ptr %ownwait
  store ptr %post, ptr %ownpost
  store i64 0, ptr %started
  store i32 0, ptr %busy
  store i64 0, ptr %state
  store i32 0, ptr %lock
  %yielding = icmp uge i32 %size, 104
  %ownyield = getelementptr i8, ptr %pool, i64 $yield
  store ptr null, ptr %ownyield
  %owncpu = getelementptr i8, ptr %pool, i64 $cpu
  %ownget = getelementptr i8, ptr %pool, i64 $get_affinity
  %ownset = getelementptr i8, ptr %pool, i64 $set_affinity
  store ptr null, ptr %owncpu
  store ptr null, ptr %ownget
  store ptr null, ptr %ownset
  br i1 %yielding, label %polite, label %count
polite:
  %yieldat = getelementptr i8, ptr %services, i64 96
  %yield = load ptr, ptr %yieldat
  store ptr %yield, ptr %ownyield
  %placing = icmp uge i32 %size, 128
  br i1 %placing, label %place, label %count
place:
  %cpuat = getelementptr i8, ptr %services, i64 104
  %getat = getelementptr i8, ptr %services, i64 112
  %setat = getelementptr i8, ptr %services, i64 120
  %cpu = load ptr, ptr %cpuat
  %get = load ptr, ptr %getat
  %set = load ptr, ptr %setat
  store ptr %cpu, ptr %owncpu
  store ptr %get, ptr %ownget
  store ptr %set, ptr %ownset
  br label %count
count:
  %alone = icmp eq i64 %workers, 0
  br i1 %alone, label %ready, label %semaphores
semaphores:
  %doneresult = call i32 %init(ptr %done, i32 0, i32 0)
  %donegood = icmp eq i32 %doneresult, 0
  br i1 %donegood, label %start, label %undo
start:
  %number = phi i64 [ 0, %semaphores ], [ %following, %created ]
  %distance = mul i64 %number, $record_bytes
  %record = getelementptr i8, ptr %records, i64 %distance
  %owner = getelementptr i8, ptr %record, i64 $record_pool
  %handle = getelementptr i8, ptr %record, i64 $record_handle
  %semaphore = getelementptr i8, ptr %record, i64 $record_semaphore
  %parked = getelementptr i8, ptr %record, i64 $record_parked
  %numberat = getelementptr i8, ptr %record, i64 $record_number
  %following = add i64 %number, 1
  store ptr %pool, ptr %owner
  store i64 %following, ptr %numberat
  store i32 0, ptr %parked
  %initresult = call i32 %init(ptr %semaphore, i32 0, i32 0)
  %initgood = icmp eq i32 %initresult, 0
  br i1 %initgood, label %spawn, label %undo
spawn:
  %createresult = call i32 %create(ptr %handle, ptr null, ptr @pool.worker, ptr %record)
  %creategood = icmp eq i32 %createresult, 0
  br i1 %creategood, label %created, label %undo
created:
  store i64 %following, ptr %started
  %more = icmp ult i64 %following, %workers
  br i1 %more, label %start, label %ready
ready:
  ret ptr %pool
undo: ; a pool with fewer threads than asked for would hide a lack of resources
  call void @tessera_pool_destroy(ptr %pool, ptr %services)
  ret ptr null
refuse:
  ret ptr null
}
"""

DESTROY = """define void @tessera_pool_destroy(ptr %pool, ptr %services) nounwind {
entry:
  %nothing = icmp eq ptr %pool, null
  br i1 %nothing, label %end, label %stop
stop:
  %joinat = getelementptr i8, ptr %services, i64 48
  %join = load ptr, ptr %joinat
  %started = getelementptr i8, ptr %pool, i64 $workers
  %workers = load i64, ptr %started
  %records = getelementptr i8, ptr %pool, i64 $records
  %state = getelementptr i8, ptr %pool, i64 $state
  %old = atomicrmw or ptr %state, i64 $STOP seq_cst
  br label %waketest
waketest:
  %sleeper = phi i64 [ 0, %stop ], [ %nextsleeper, %wake ]
  %sleepersleft = icmp ult i64 %sleeper, %workers
  br i1 %sleepersleft, label %wake, label %jointest
wake:
  %sleeperdistance = mul i64 %sleeper, $record_bytes
  %sleeperrecord = getelementptr i8, ptr %records, i64 %sleeperdistance
  %woken = call i1 @pool.wake(ptr %pool, ptr %sleeperrecord)
  %nextsleeper = add i64 %sleeper, 1
  br label %waketest
jointest:
  %number = phi i64 [ 0, %waketest ], [ %following, %wait ]
  %left = icmp ult i64 %number, %workers
  br i1 %left, label %wait, label %free
wait:
  %distance = mul i64 %number, $record_bytes
  %record = getelementptr i8, ptr %records, i64 %distance
  %handleat = getelementptr i8, ptr %record, i64 $record_handle
  %handle = load i64, ptr %handleat
  %result = call i32 %join(i64 %handle, ptr null)
  %following = add i64 %number, 1
  br label %jointest
free:
  %releaseat = getelementptr i8, ptr %services, i64 24
  %release = load ptr, ptr %releaseat
  %kept = icmp eq ptr %release, null
  br i1 %kept, label %end, label %give
give:
  %contextat = getelementptr i8, ptr %services, i64 8
  %context = load ptr, ptr %contextat
  call void %release(ptr %context, ptr %pool)
  br label %end
end:
  ret void
}
"""
