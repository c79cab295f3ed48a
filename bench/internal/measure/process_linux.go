package measure

import (
	"runtime"
	"syscall"
	"time"
)

// prSetTimerslack is prctl's PR_SET_TIMERSLACK.
const prSetTimerslack = 29

// pauser returns how the goroutine that calls it waits, and what it calls when it has waited for the last time. time.Sleep is late by up to
// a millisecond, as the runtime waits for timers in epoll, which counts in milliseconds; so the goroutine keeps a thread, which sleeps by
// itself, and asks the kernel not to group its wake-ups with others'.
func pauser() (pause func(time.Duration), done func()) {
	runtime.LockOSThread()
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerslack, 1, 0) // without it pauses are 50 us longer
	pause = func(d time.Duration) {
		t := syscall.NsecToTimespec(int64(d))
		_ = syscall.Nanosleep(&t, nil) // cut short by a signal: whoever waits looks at the clock again
	}
	return pause, runtime.UnlockOSThread
}

// used is the CPU time that this process has taken, of user and system.
func used() (time.Duration, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0, err
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), nil
}
