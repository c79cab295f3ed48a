package stage

import "sync/atomic"

// The states of a parker.
const (
	awake int32 = iota
	asleep
	notified
)

// parker lets one goroutine sleep until another tells it that something
// changed. A notification is kept, so it may come before the sleep; several
// before one sleep count as one.
//
// The sleeper looks at what it waits for, finds nothing, and calls park. The
// other changes it and then calls unpark. Whatever comes first, nothing is
// missed:
//
//  1. sleeper looks, 2. other changes, 3. unpark: awake -> notified, no token,
//  4. park finds notified, resets it and returns: the sleeper looks again.
//  1. sleeper looks, 2. park: awake -> asleep, 3. other changes, 4. unpark:
//     asleep -> notified and the token, 5. park takes the token, resets.
//
// There is at most one token per asleep -> notified, and park takes it before
// it can be asleep again: the send in unpark never blocks.
type parker struct {
	state atomic.Int32
	token chan struct{}
}

func newParker() parker {
	return parker{token: make(chan struct{}, 1)}
}

// park blocks until unpark was called since the last park returned. Only the
// owning goroutine calls it, holding no lock.
func (p *parker) park() {
	if p.state.CompareAndSwap(awake, asleep) {
		<-p.token
	}
	p.state.Store(awake)
}

// unpark ends the current park, or the next one at once.
func (p *parker) unpark() {
	if p.state.Load() == notified {
		// Whoever notified first has not been noticed yet. The sleeper will
		// look after this change too, because it resets the state first.
		return
	}
	if p.state.Swap(notified) == asleep {
		p.token <- struct{}{}
	}
}
