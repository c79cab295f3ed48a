package worker

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
)

// die ends this process as nothing in it can notice.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until it has
}

// failPoint counts how often its step is reached.
type failPoint struct {
	FailPoint
	leaving atomic.Bool
	reached atomic.Int64
}

// reach ends the process when it is this step's turn.
func (f *failPoint) reach(at string) {
	if f.turn(at) {
		die()
	}
}

// turn counts that a step is reached, and says whether it is the one.
func (f *failPoint) turn(at string) bool {
	return f.At == at && (!f.Draining || f.leaving.Load()) && f.reached.Add(1) == int64(max(1, f.N))
}

// faults decides which messages are struck.
type faults struct {
	list []Fault

	mu     sync.Mutex
	struck map[string]int
}

// Strikes says whether a fault is for an id. It is pure.
func (f Fault) Strikes(id string) bool {
	if f.Every > 0 && hash(id)%f.Every == f.Rest {
		return true
	}
	return f.Part != "" && strings.Contains(id, f.Part) || slices.Contains(f.IDs, id)
}

func hash(id string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // a hash does not fail
	return h.Sum32()
}

// turn says whether the fault, the i-th of the list, strikes once more.
func (f *faults) turn(i int, id string) bool {
	limit := f.list[i].Times
	if limit == 0 {
		return true
	}
	key := fmt.Sprintf("%d %s", i, id)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.struck[key]++
	return f.struck[key] <= limit
}

// strike does to a message what is planned for it at a stage. It returns what the handler must return, and does not return at all after
// a panic or a Goexit.
func (f *faults) strike(ctx context.Context, id string, reporter bool) error {
	for i, fault := range f.list {
		if fault.Reporter == reporter && !fault.wholeBatch() && fault.Strikes(id) && f.turn(i, id) {
			if err := fault.act(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f Fault) wholeBatch() bool {
	return slices.Contains([]string{Twice, Alien, Half, Whole}, f.Kind)
}

// batch is the kind of the first fault that strikes a batch as a whole, "" for none.
func (f *faults) batch(entries []ledger.Observation) string {
	for i, fault := range f.list {
		if !fault.wholeBatch() {
			continue
		}
		for _, entry := range entries {
			if fault.Strikes(entry.ID) && f.turn(i, entry.ID) {
				return fault.Kind
			}
		}
	}
	return ""
}

var errStruck = errors.New("struck on purpose")

// err is what an Error or a Reject says.
func (f Fault) err() error {
	if f.Text == 0 {
		return errStruck
	}
	return fmt.Errorf("%w: %s", errStruck, strings.Repeat("\x1b[31mé\r\nlevel=ERROR msg=forged", f.Text/33+1))
}

func (f Fault) act(ctx context.Context) error {
	switch f.Kind {
	case Panic:
		panic(f.err().Error())
	case PanicNil:
		panic(nil)
	case Goexit:
		runtime.Goexit()
	case Error:
		return f.err()
	case Reject:
		return broadway.Reject(f.err())
	case Down:
		return broadway.Unavailable(errStruck)
	case Die:
		die()
	case Hang:
		<-time.After(f.For)
		return errStruck
	case Slow:
		return wait(ctx, f.For)
	}
	return nil
}

// wait is a handling that takes d, unless its context ends.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
