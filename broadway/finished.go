package broadway

import (
	"slices"
	"sync/atomic"
)

// runSize is how many finished messages a run holds at most, unless it is a part of a
// block.
const runSize = 64

// runsKept is how many runs all workers together use again at most, though each may have
// fewestKept: more are on their way where many workers finish a message each, faster than
// these are taken.
const (
	runsKept   = 16384
	fewestKept = 32
)

// run is some messages that one worker has finished for one batcher. The worker
// adds to it also while it is on its way, so that what is finished can be taken at
// once, also while its worker is in a slow handler, and what is finished fast is
// handed over many at a time.
//
// Whoever swaps state has what it said: the worker adds as long as it can move it
// from n to n+1; the batcher closes the run and owns what was in it.
//
// A run that is used again while somebody pushes on top of it does no harm: the top is
// what it is linked to.
type run struct {
	below    *run          // in the batcher's stack
	state    atomic.Uint32 // how many there are, runClosed, or runFree
	messages []*Message    // a part of the worker's block, or own
	own      []*Message
}

const (
	runClosed = 1<<32 - 1 - iota // the batcher takes what is in it
	runFree                      // the batcher has done so: its worker may use it again
)

func (r *run) link() **run { return &r.below }

// close ends r, and returns what is in it; the reader frees r when it has that.
func (r *run) close() []*Message { return r.messages[:r.state.Swap(runClosed)] }

// free lets the worker of r use it again.
func (r *run) free(n int) {
	clear(r.own[:min(n, len(r.own))])
	r.below = nil
	r.state.Store(runFree)
}

// runs are those of one worker for one batcher.
type runs struct {
	last  *run
	n     uint32 // of last
	block *block // of which last is a part, or nil
	first int    // its place in block
	used  []*run // as many as were on their way at once, at most keep
	turn  int
	keep  int
}

// runsOf are those of one of so many workers, for so many batchers.
func runsOf(workers, batchers int) []runs {
	all := make([]runs, batchers)
	for i := range all {
		all[i].keep = max(runsKept/workers, fewestKept)
	}
	return all
}

// put adds m, which lies at a place in b unless that is nil; the first message of a run
// brings the run into box. What follows in the same block is not even written down. It
// says how many messages box's reader has to count with because of m: all that the run
// may come to hold is counted with when it is brought, so that what follows is not counted.
func (o *runs) put(box *mailbox, m *Message, b *block, place int) (announced int) {
	if r := o.last; r != nil && b == o.block && int(o.n) < len(r.messages) && (b == nil || place == o.first+int(o.n)) {
		if b == nil {
			r.messages[o.n] = m
		}
		if r.state.CompareAndSwap(o.n, o.n+1) {
			o.n++
			if b == nil {
				return 1
			}
			return 0
		}
		if b == nil {
			r.messages[o.n] = nil // it was closed, and the message is none of it
		}
	}
	r := o.fresh()
	if o.block != b {
		o.block = b
	}
	if b != nil {
		r.messages, o.first = b.messages[place:], place
	} else {
		if r.own == nil {
			r.own = make([]*Message, runSize)
		}
		r.messages = r.own
		r.messages[0] = m
	}
	r.state.Store(1)
	o.last, o.n = r, 1
	box.runs.push(r)
	if b == nil {
		return 1
	}
	return len(r.messages)
}

// cut makes the next message begin a run: it comes after all that other workers
// have put before.
func (o *runs) cut() { o.last = nil }

// fresh is a run that nobody else has: the one that was used longest ago, if the reader
// is done with it.
func (o *runs) fresh() *run {
	if len(o.used) > 0 {
		if o.turn++; o.turn >= len(o.used) {
			o.turn = 0
		}
		if r := o.used[o.turn]; r.state.Load() == runFree {
			return r
		}
	}
	r := new(run)
	if len(o.used) >= o.keep {
		return r
	}
	o.used = slices.Insert(o.used, o.turn, r)
	return r
}

// rest lets the collector have the block that the last run is a part of.
func (o *runs) rest() { o.last, o.block = nil, nil }
