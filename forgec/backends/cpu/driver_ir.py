"""The text of the driver of an image in LLVM IR: it runs launches one after another, each on one thread or on a team.

``runtime/driver.py`` declares what it shares with Python. How the team works:

Every thread goes through the same launches. One that is for all has a share of the programs for each thread, beginning
with its own: so a thread finds in its cache what it left there one launch before. It takes a few programs at a time,
and when none are left of its share it takes from those of the others, so nobody waits long for a thread that came late.
Then they meet at a barrier. Launches for one thread are the first one's, without a barrier between them.

The counters of a launch's shares are set back while the next one runs, which uses others: when a thread is past a
barrier, all have left the launch before it. At a barrier, and between jobs, a thread looks again and again for a while,
then it sleeps (futex). Whoever wakes it first writes what it waits for, then looks whether somebody sleeps; whoever
goes to sleep first says so, then looks again: in one order for all threads (``seq_cst``).

When a program fails, the others of the launch still run, so that the error is that of the first one that fails,
whatever thread finds it.
"""

from __future__ import annotations

IR = r"""
%record = type { ptr, ptr, i64, i64 }
%job = type { ptr, i64, i64, i64, i64, ptr, ptr, ptr, ptr, i64 }
%seat = type { i32, i32, i64, ptr, [40 x i8], i64, [56 x i8], i64, [56 x i8], i64, i64, i32, [44 x i8] }
%team = type { i32, [60 x i8], i32, i32, [56 x i8], ptr, i64, i32, i32, [40 x i8], ptr, i64, i64, [40 x i8] }

declare i64 @llvm.umax.i64(i64, i64)
declare i64 @llvm.umin.i64(i64, i64)
{declaration}

; ---- waiting

; Until the word is another one.
define internal void @wait(ptr %team, ptr %word, i32 %old, ptr %sleeping) #0 {
entry:
  %spins.at = getelementptr %team, ptr %team, i32 0, i32 12
  %spins = load i64, ptr %spins.at
  br label %look
look:
  %n = phi i64 [ 0, %entry ], [ %n.next, %again ]
  %now = load atomic i32, ptr %word acquire, align 4
  %same = icmp eq i32 %now, %old
  br i1 %same, label %still, label %done
still:
  %more = icmp ult i64 %n, %spins
  br i1 %more, label %again, label %tired
again:
  {pause}
  %n.next = add i64 %n, 1
  br label %look
tired:
  %before = atomicrmw add ptr %sleeping, i32 1 seq_cst
  %call.at = getelementptr %team, ptr %team, i32 0, i32 10
  %call = load ptr, ptr %call.at
  %futex.at = getelementptr %team, ptr %team, i32 0, i32 11
  %futex = load i64, ptr %futex.at
  %expected = zext i32 %old to i64
  br label %check
check:
  %found = load atomic i32, ptr %word seq_cst, align 4
  %unchanged = icmp eq i32 %found, %old
  br i1 %unchanged, label %sleep, label %awake
sleep: ; FUTEX_WAIT | FUTEX_PRIVATE_FLAG
  %r = call i64 (i64, ...) %call(i64 %futex, ptr %word, i64 128, i64 %expected, ptr null, ptr null, i64 0)
  br label %check
awake:
  %after = atomicrmw sub ptr %sleeping, i32 1 seq_cst
  br label %done
done:
  ret void
}

; The word becomes another one, and who sleeps for it wakes.
define internal void @signal(ptr %team, ptr %word, ptr %sleeping) #0 {
  %old = atomicrmw add ptr %word, i32 1 seq_cst
  %count = load atomic i32, ptr %sleeping seq_cst, align 4
  %nobody = icmp eq i32 %count, 0
  br i1 %nobody, label %done, label %wake
wake: ; FUTEX_WAKE | FUTEX_PRIVATE_FLAG
  %call.at = getelementptr %team, ptr %team, i32 0, i32 10
  %call = load ptr, ptr %call.at
  %futex.at = getelementptr %team, ptr %team, i32 0, i32 11
  %futex = load i64, ptr %futex.at
  %r = call i64 (i64, ...) %call(i64 %futex, ptr %word, i64 129, i64 2147483647, ptr null, ptr null, i64 0)
  br label %done
done:
  ret void
}

define internal void @barrier(ptr %team, i64 %threads) #0 {
  %word = getelementptr %team, ptr %team, i32 0, i32 2
  %sleeping = getelementptr %team, ptr %team, i32 0, i32 3
  %passed = load atomic i32, ptr %word acquire, align 4
  %before = atomicrmw add ptr %team, i32 1 acq_rel
  %count = trunc i64 %threads to i32
  %others = sub i32 %count, 1
  %last = icmp eq i32 %before, %others
  br i1 %last, label %open, label %stay
open:
  store atomic i32 0, ptr %team monotonic, align 4
  call void @signal(ptr %team, ptr %word, ptr %sleeping)
  ret void
stay:
  call void @wait(ptr %team, ptr %word, i32 %passed, ptr %sleeping)
  ret void
}

; ---- one thread

; The launches from %begin to %end.
define internal i32 @alone(ptr %job, i64 %begin, i64 %end) #0 {
entry:
  %records = load ptr, ptr %job
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %fine ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %done
body:
  %record = getelementptr %record, ptr %records, i64 %i
  %function = load ptr, ptr %record
  %slots.at = getelementptr %record, ptr %record, i32 0, i32 1
  %slots = load ptr, ptr %slots.at
  %programs.at = getelementptr %record, ptr %record, i32 0, i32 2
  %programs = load i64, ptr %programs.at
  %code = call i32 %function(ptr null, ptr %slots, i64 0, i64 %programs)
  %ok = icmp eq i32 %code, 0
  br i1 %ok, label %fine, label %failed
fine:
  %next = add i64 %i, 1
  br label %loop
failed:
  %failed.at = getelementptr %job, ptr %job, i32 0, i32 9
  store i64 %i, ptr %failed.at
  ret i32 %code
done:
  ret i32 0
}

; ---- a team

define internal ptr @seat(ptr %team, i64 %index) #0 {
  %seats = getelementptr %team, ptr %team, i32 1
  %seat = getelementptr %seat, ptr %seats, i64 %index
  ret ptr %seat
}

; The programs from %at on of launch %i returned %code: the thread keeps the first ones.
define internal void @fail(ptr %team, ptr %seat, i64 %i, i64 %at, i32 %code) #0 {
  %code.at = getelementptr %seat, ptr %seat, i32 0, i32 11
  %known = load i32, ptr %code.at
  %first = icmp eq i32 %known, 0
  %at.at = getelementptr %seat, ptr %seat, i32 0, i32 9
  %before = load i64, ptr %at.at
  %earlier = icmp ult i64 %at, %before
  %kept = or i1 %first, %earlier
  br i1 %kept, label %keep, label %done
keep:
  store i32 %code, ptr %code.at
  store i64 %at, ptr %at.at
  %record.at = getelementptr %seat, ptr %seat, i32 0, i32 10
  store i64 %i, ptr %record.at
  %failed.at = getelementptr %team, ptr %team, i32 0, i32 7
  %number = trunc i64 %i to i32
  %number.plus.one = add i32 %number, 1
  store atomic i32 %number.plus.one, ptr %failed.at monotonic, align 4
  br label %done
done:
  ret void
}

; Whether a launch before %end failed. Threads ask after a barrier: others may be in the next launch already, and what
; fails there must not count, or this thread would leave while they wait for it.
define internal i1 @has_failed(ptr %team, i64 %end) #0 {
  %failed.at = getelementptr %team, ptr %team, i32 0, i32 7
  %number.plus.one = load atomic i32, ptr %failed.at monotonic, align 4
  %number = sub i32 %number.plus.one, 1
  %limit = trunc i64 %end to i32
  %before = icmp ult i32 %number, %limit
  ret i1 %before
}

; What thread %index does of launch %i: its share, then what is left of the others'.
define internal void @take_part(ptr %team, ptr %record, i64 %i, i64 %index, i64 %threads, i32 %counter) #0 {
entry:
  %own = call ptr @seat(ptr %team, i64 %index)
  %function = load ptr, ptr %record
  %slots.at = getelementptr %record, ptr %record, i32 0, i32 1
  %slots = load ptr, ptr %slots.at
  %programs.at = getelementptr %record, ptr %record, i32 0, i32 2
  %programs = load i64, ptr %programs.at
  %chunk.at = getelementptr %record, ptr %record, i32 0, i32 3
  %least = load i64, ptr %chunk.at
  %share = udiv i64 %programs, %threads
  %rest = urem i64 %programs, %threads
  %eighth = lshr i64 %share, 3
  %chunk = call i64 @llvm.umax.i64(i64 %least, i64 %eighth)
  br label %owners
owners:
  %v = phi i64 [ 0, %entry ], [ %v.next, %empty ]
  %o = phi i64 [ %index, %entry ], [ %o.next, %empty ]
  %any = icmp ult i64 %v, %threads
  br i1 %any, label %owner, label %done
owner:
  %seat = call ptr @seat(ptr %team, i64 %o)
  %even = getelementptr %seat, ptr %seat, i32 0, i32 5
  %odd = getelementptr %seat, ptr %seat, i32 0, i32 7
  %is.odd = icmp ne i32 %counter, 0
  %taken = select i1 %is.odd, ptr %odd, ptr %even
  %before = mul i64 %share, %o
  %ones = call i64 @llvm.umin.i64(i64 %o, i64 %rest)
  %low = add i64 %before, %ones
  %gets.one = icmp ult i64 %o, %rest
  %one = zext i1 %gets.one to i64
  %size = add i64 %share, %one
  br label %take
take:
  %from = atomicrmw add ptr %taken, i64 %chunk monotonic
  %some = icmp ult i64 %from, %size
  br i1 %some, label %run, label %empty
run:
  %left = sub i64 %size, %from
  %count = call i64 @llvm.umin.i64(i64 %left, i64 %chunk)
  %begin = add i64 %low, %from
  %end = add i64 %begin, %count
  %code = call i32 %function(ptr null, ptr %slots, i64 %begin, i64 %end)
  %ok = icmp eq i32 %code, 0
  br i1 %ok, label %take, label %failed
failed:
  call void @fail(ptr %team, ptr %own, i64 %i, i64 %begin, i32 %code)
  br label %take
empty:
  %v.next = add i64 %v, 1
  %o.after = add i64 %o, 1
  %wraps = icmp eq i64 %o.after, %threads
  %o.next = select i1 %wraps, i64 0, i64 %o.after
  br label %owners
done:
  ret void
}

; What thread %index of %threads does of a job. The last launch is for all: so nobody leaves before the others are done.
define internal void @join_in(ptr %job, ptr %team, i64 %index, i64 %threads) #0 {
entry:
  %records = load ptr, ptr %job
  %begin.at = getelementptr %job, ptr %job, i32 0, i32 2
  %begin = load i64, ptr %begin.at
  %end.at = getelementptr %job, ptr %job, i32 0, i32 3
  %end = load i64, ptr %end.at
  %seat = call ptr @seat(ptr %team, i64 %index)
  %failed.at = getelementptr %team, ptr %team, i32 0, i32 7
  %is.first = icmp eq i64 %index, 0
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %continue ]
  %counter = phi i32 [ 0, %entry ], [ %counter.next, %continue ]
  %pending = phi i1 [ false, %entry ], [ %pending.next, %continue ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %done
body:
  %record = getelementptr %record, ptr %records, i64 %i
  %chunk.at = getelementptr %record, ptr %record, i32 0, i32 3
  %chunk = load i64, ptr %chunk.at
  %for.one = icmp eq i64 %chunk, 0
  br i1 %for.one, label %single, label %all

single:
  br i1 %is.first, label %mine, label %continue
mine:
  %broken = load atomic i32, ptr %failed.at monotonic, align 4
  %sound = icmp eq i32 %broken, 0
  br i1 %sound, label %run, label %continue
run:
  %function = load ptr, ptr %record
  %slots.at = getelementptr %record, ptr %record, i32 0, i32 1
  %slots = load ptr, ptr %slots.at
  %programs.at = getelementptr %record, ptr %record, i32 0, i32 2
  %programs = load i64, ptr %programs.at
  %code = call i32 %function(ptr null, ptr %slots, i64 0, i64 %programs)
  %ok = icmp eq i32 %code, 0
  br i1 %ok, label %continue, label %fails
fails:
  call void @fail(ptr %team, ptr %seat, i64 %i, i64 0, i32 %code)
  br label %continue

all:
  br i1 %pending, label %meet, label %share
meet:
  call void @barrier(ptr %team, i64 %threads)
  %stops = call i1 @has_failed(ptr %team, i64 %i)
  br i1 %stops, label %give.up, label %share
share:
  call void @take_part(ptr %team, ptr %record, i64 %i, i64 %index, i64 %threads, i32 %counter)
  %even = getelementptr %seat, ptr %seat, i32 0, i32 5
  %odd = getelementptr %seat, ptr %seat, i32 0, i32 7
  %is.odd = icmp ne i32 %counter, 0
  %other = select i1 %is.odd, ptr %even, ptr %odd
  store atomic i64 0, ptr %other monotonic, align 8
  call void @barrier(ptr %team, i64 %threads)
  %flipped = xor i32 %counter, 1
  %after = add i64 %i, 1
  %was.last = icmp eq i64 %after, %end
  br i1 %was.last, label %done, label %ask ; without a look: the team may have another job already
ask:
  %failed.now = call i1 @has_failed(ptr %team, i64 %after)
  br i1 %failed.now, label %give.up, label %continue

continue:
  %counter.next = phi i32 [ %counter, %single ], [ %counter, %mine ], [ %counter, %run ], [ %counter, %fails ],
    [ %flipped, %ask ]
  %pending.next = phi i1 [ true, %single ], [ true, %mine ], [ true, %run ], [ true, %fails ], [ false, %ask ]
  %next = add i64 %i, 1
  br label %loop
give.up: ; the caller may begin another job, which sets the failure back, only when all have seen it
  call void @barrier(ptr %team, i64 %threads)
  ret void
done:
  ret void
}

; What OpenMP calls on each of its threads, as many as it likes to give.
define internal void @member(ptr %job) #0 {
  %team.at = getelementptr %job, ptr %job, i32 0, i32 5
  %team = load ptr, ptr %team.at
  %number.at = getelementptr %job, ptr %job, i32 0, i32 7
  %number = load ptr, ptr %number.at
  %count.at = getelementptr %job, ptr %job, i32 0, i32 8
  %count = load ptr, ptr %count.at
  %index = call i32 %number()
  %threads = call i32 %count()
  %index.wide = sext i32 %index to i64
  %threads.wide = sext i32 %threads to i64
  call void @join_in(ptr %job, ptr %team, i64 %index.wide, i64 %threads.wide)
  ret void
}

define ptr @forgec_work(ptr %seat) #0 {
entry:
  %sleeping = getelementptr %seat, ptr %seat, i32 0, i32 1
  %index.at = getelementptr %seat, ptr %seat, i32 0, i32 2
  %index = load i64, ptr %index.at
  %team.at = getelementptr %seat, ptr %seat, i32 0, i32 3
  %team = load ptr, ptr %team.at
  %job.at = getelementptr %team, ptr %team, i32 0, i32 5
  %threads.at = getelementptr %team, ptr %team, i32 0, i32 6
  %quit.at = getelementptr %team, ptr %team, i32 0, i32 8
  br label %loop
loop:
  %seen = phi i32 [ 0, %entry ], [ %called, %work ]
  call void @wait(ptr %team, ptr %seat, i32 %seen, ptr %sleeping)
  %called = load atomic i32, ptr %seat acquire, align 4
  %quit = load atomic i32, ptr %quit.at monotonic, align 4
  %goes.on = icmp eq i32 %quit, 0
  br i1 %goes.on, label %work, label %done
work:
  %job = load ptr, ptr %job.at
  %threads = load i64, ptr %threads.at
  call void @join_in(ptr %job, ptr %team, i64 %index, i64 %threads)
  br label %loop
done:
  ret ptr null
}

; What the first program returned that failed.
define internal i32 @first_failure(ptr %job, ptr %team, i64 %threads) #0 {
entry:
  br label %loop
loop:
  %t = phi i64 [ 0, %entry ], [ %next, %continue ]
  %code = phi i32 [ 0, %entry ], [ %code.next, %continue ]
  %at = phi i64 [ -1, %entry ], [ %at.next, %continue ]
  %record = phi i64 [ 0, %entry ], [ %record.next, %continue ]
  %more = icmp ult i64 %t, %threads
  br i1 %more, label %continue, label %done
continue:
  %seat = call ptr @seat(ptr %team, i64 %t)
  %code.at = getelementptr %seat, ptr %seat, i32 0, i32 11
  %found = load i32, ptr %code.at
  %at.at = getelementptr %seat, ptr %seat, i32 0, i32 9
  %begin = load i64, ptr %at.at
  %record.at = getelementptr %seat, ptr %seat, i32 0, i32 10
  %i = load i64, ptr %record.at
  %failed = icmp ne i32 %found, 0
  %earlier = icmp ult i64 %begin, %at
  %kept = and i1 %failed, %earlier
  %code.next = select i1 %kept, i32 %found, i32 %code
  %at.next = select i1 %kept, i64 %begin, i64 %at
  %record.next = select i1 %kept, i64 %i, i64 %record
  %next = add i64 %t, 1
  br label %loop
done:
  %failed.at = getelementptr %job, ptr %job, i32 0, i32 9
  store i64 %record, ptr %failed.at
  ret i32 %code
}

define i32 @forgec_run(ptr %job) #0 {
entry:
  %count.at = getelementptr %job, ptr %job, i32 0, i32 1
  %count = load i64, ptr %count.at
  %begin.at = getelementptr %job, ptr %job, i32 0, i32 2
  %begin = load i64, ptr %begin.at
  %end.at = getelementptr %job, ptr %job, i32 0, i32 3
  %end = load i64, ptr %end.at
  %threads.at = getelementptr %job, ptr %job, i32 0, i32 4
  %threads = load i64, ptr %threads.at
  %many = icmp sgt i64 %threads, 1
  %some = icmp slt i64 %begin, %end
  %together = and i1 %many, %some
  br i1 %together, label %head, label %only
only:
  %only.code = call i32 @alone(ptr %job, i64 0, i64 %count)
  ret i32 %only.code

head:
  %head.code = call i32 @alone(ptr %job, i64 0, i64 %begin)
  %head.ok = icmp eq i32 %head.code, 0
  br i1 %head.ok, label %prepare, label %head.failed
head.failed:
  ret i32 %head.code
prepare:
  %team.at = getelementptr %job, ptr %job, i32 0, i32 5
  %team = load ptr, ptr %team.at
  %failed.at = getelementptr %team, ptr %team, i32 0, i32 7
  store atomic i32 0, ptr %failed.at monotonic, align 4
  %team.job.at = getelementptr %team, ptr %team, i32 0, i32 5
  store ptr %job, ptr %team.job.at
  %team.threads.at = getelementptr %team, ptr %team, i32 0, i32 6
  store i64 %threads, ptr %team.threads.at
  br label %clear
clear:
  %t = phi i64 [ 0, %prepare ], [ %t.next, %clear ]
  %seat = call ptr @seat(ptr %team, i64 %t)
  %even = getelementptr %seat, ptr %seat, i32 0, i32 5
  store atomic i64 0, ptr %even monotonic, align 8
  %odd = getelementptr %seat, ptr %seat, i32 0, i32 7
  store atomic i64 0, ptr %odd monotonic, align 8
  %code.at = getelementptr %seat, ptr %seat, i32 0, i32 11
  store i32 0, ptr %code.at
  %t.next = add i64 %t, 1
  %t.more = icmp ult i64 %t.next, %threads
  br i1 %t.more, label %clear, label %cleared
cleared:
  %parallel.at = getelementptr %job, ptr %job, i32 0, i32 6
  %parallel = load ptr, ptr %parallel.at
  %own = icmp eq ptr %parallel, null
  br i1 %own, label %call, label %openmp
openmp:
  %wanted = trunc i64 %threads to i32
  call void %parallel(ptr @member, ptr %job, i32 %wanted, i32 0)
  br label %joined
call:
  %c = phi i64 [ 1, %cleared ], [ %c.next, %call ]
  %called = call ptr @seat(ptr %team, i64 %c)
  %sleeping = getelementptr %seat, ptr %called, i32 0, i32 1
  call void @signal(ptr %team, ptr %called, ptr %sleeping)
  %c.next = add i64 %c, 1
  %c.more = icmp ult i64 %c.next, %threads
  br i1 %c.more, label %call, label %called.all
called.all:
  call void @join_in(ptr %job, ptr %team, i64 0, i64 %threads)
  br label %joined
joined:
  %failed = load atomic i32, ptr %failed.at monotonic, align 4
  %ok = icmp eq i32 %failed, 0
  br i1 %ok, label %tail, label %failing
failing:
  %code = call i32 @first_failure(ptr %job, ptr %team, i64 %threads)
  ret i32 %code
tail:
  %tail.code = call i32 @alone(ptr %job, i64 %end, i64 %count)
  ret i32 %tail.code
}

attributes #0 = { nounwind "no-builtins" }
"""
