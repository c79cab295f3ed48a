package broadway

import (
	"container/heap"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// batcher is the batcher stage of one name, with its reporters. One goroutine
// owns all of its batches; workers and reporters reach it by its mailbox.
//
// With PartitionBy it keeps as many shards as there are reporters: a key belongs
// to one shard, a batch holds keys of one shard, and one batch of a shard is in
// flight at a time. A member that waits for another attempt blocks its key:
// later messages of it are set aside.
type batcher struct {
	p       *Pipeline
	cfg     BatcherConfig
	index   int // in the pipeline's list
	box     mailbox
	jobs    chan *openBatch // to reporters; never more than idle ones
	crew    crew            // of reporters
	circuit circuit

	// Written by many.
	held, highest atomic.Int64 // messages, from a processor to their settling
	scan          atomic.Bool  // some reference drains: look at the open batches
	flush         atomic.Bool  // close all open batches once
	recall        atomic.Bool  // some messages were recalled: look for them
	crowded       atomic.Bool  // copy old messages: see copyOut
	finishedAt    atomic.Int64 // when a report ended last, or the first one began
	slowest       atomic.Int64 // the longest report so far, nanoseconds
	blockedNow    atomic.Bool  // no report has ended for long: see checkBlocked
	fullest       atomic.Int64 // size of the fullest open batch that a reporter could take, else 0
	opened        atomic.Int64
	closed        atomic.Int64
	reporting     atomic.Int64
	patience      atomic.Int64 // messages that need not wake the batcher: see patience.go
	until         atomic.Int64 // by when it wakes anyway, nanoseconds

	mu      sync.Mutex // protects following fields
	done    []report   // what reporters finished
	stopped []*AckRef  // until the batcher is not blocked any more

	// The batcher goroutine's own.
	open     map[batchID]*openBatch
	recent   *openBatch // what the last message joined, if it is open
	likely   int        // how many messages a batch has, guessed by the last ones
	spare    []report   // what done was before: used again
	due      deadlines
	ready    [][]*openBatch // closed batches, by shard
	busy     []bool         // a batch of the shard is in flight
	blocked  map[uint64]*blockedKey
	lost     map[uint64]bool // keys of which recalled messages were given back
	arrivals uint64
	yields   bool // some reference drains, and its messages may be in closed batches
	turn     int  // the shard to look at first
	timer    *time.Timer
}

// report is what a reporter finished.
type report struct {
	batch   *openBatch
	stuck   bool       // its reporter did not count as working any more
	failed  int        // members
	retries []retry    // members that are to be tried again
	kept    []*Message // members that wait for the circuit, in their order
	outage  error      // why they do
}

func newBatcher(p *Pipeline, cfg BatcherConfig) *batcher {
	shards := 1
	if p.cfg.Processor.PartitionBy != nil {
		shards = cfg.Concurrency
	}
	b := &batcher{
		p: p, cfg: cfg, jobs: make(chan *openBatch, cfg.Concurrency),
		open: map[batchID]*openBatch{}, ready: make([][]*openBatch, shards), busy: make([]bool, shards),
		blocked: map[uint64]*blockedKey{}, lost: map[uint64]bool{},
	}
	b.circuit.init(p, cfg.Name, func([]*Message) { b.box.nudge() })
	b.crew = crew{
		p: p, stage: cfg.Name, timeout: cfg.ReportTimeout, max: max(cfg.MaxStuck, 0), retry: cfg.RetryStuck,
		circuit: &b.circuit, fresh: b.desk,
	}
	b.box.init()
	return b
}

// ordered says whether the order of keys is kept.
func (b *batcher) ordered() bool { return b.p.cfg.Processor.PartitionBy != nil }

// put takes over a message that is tried again.
func (b *batcher) put(m *Message) { b.box.post(m) }

// run batches until stop is closed, and closes jobs behind itself.
func (b *batcher) run(stop <-chan struct{}) {
	defer close(b.jobs)
	b.timer = time.NewTimer(time.Hour)
	defer b.timer.Stop()
	for {
		b.collect()
		now := time.Now()
		for m := b.box.pop(); m != nil; m = b.box.pop() {
			b.take(m, now)
		}
		for r := b.box.runs.take(); r != nil; {
			r = b.takeRun(r, now)
		}
		b.copyOut(now)
		b.closeDue(now)
		b.yield()
		b.withdraw()
		b.relieve()
		b.dispatch()
		b.publish()
		b.patience.Store(b.mayMiss())
		if b.box.rest() {
			select {
			case <-b.box.wake:
			case <-b.timer.C:
			case <-stop:
				return
			}
			b.box.asleep.Store(false)
		}
		b.patience.Store(0)
	}
}

// finished hands back a reported batch. Called by reporters.
func (b *batcher) finished(r report) {
	b.mu.Lock()
	b.done = append(b.done, r)
	b.mu.Unlock()
	b.box.nudge()
}

// collect takes in what reporters finished, and lets references go on that were
// stopped, once the batcher is not blocked.
func (b *batcher) collect() {
	b.mu.Lock()
	done, stopped := b.done, b.stopped
	b.done = b.spare[:0]
	b.spare = done
	if b.blocks() {
		stopped = nil
	} else {
		b.stopped = nil
	}
	b.mu.Unlock()
	for _, ref := range stopped {
		ref.goOn()
	}
	for _, r := range done {
		if !r.stuck {
			b.reporting.Add(-1)
		}
		if b.ordered() {
			b.busy[r.batch.id.shard] = false
		}
		b.keep(r)
		if b.ordered() {
			b.resolve(r)
			continue
		}
		for _, again := range r.retries {
			b.p.parker.park(again)
		}
	}
	clear(done)
}

// keep puts the members that wait for the circuit back to the front of their shard,
// in a batch as it was.
func (b *batcher) keep(r report) {
	if len(r.kept) == 0 {
		return
	}
	o := r.batch
	again := &openBatch{Batch: Batch{Batcher: o.Batcher, Key: o.Key, Trigger: o.Trigger, Messages: r.kept}, id: o.id, index: -1}
	for _, m := range r.kept {
		again.Bytes += m.size
	}
	b.ready[o.id.shard] = append([]*openBatch{again}, b.ready[o.id.shard]...)
}

// close takes o out of the open batches and makes it wait for a reporter.
func (b *batcher) close(o *openBatch, t Trigger) {
	delete(b.open, o.id)
	if b.recent == o {
		b.recent = nil
	}
	b.likely = max(len(o.Messages), b.likely-b.likely/8)
	if o.index >= 0 {
		heap.Remove(&b.due, o.index)
	}
	o.Trigger = t
	b.ready[o.id.shard] = append(b.ready[o.id.shard], o)
}

// closeDue closes batches whose time has come, and sets the timer for the next.
func (b *batcher) closeDue(now time.Time) {
	for len(b.due) > 0 && !b.due[0].deadline.After(now) {
		b.close(b.due[0], TriggerTimeout)
	}
	if b.scan.Swap(false) {
		b.yields = true
		for _, o := range b.open {
			if slices.ContainsFunc(o.Messages, func(m *Message) bool { return m.ref.Draining() }) {
				b.close(o, TriggerDrain)
			}
		}
	}
	wait := time.Hour
	if len(b.due) > 0 {
		wait = b.due[0].deadline.Sub(now)
	}
	b.timer.Reset(wait)
}

// yield gives back the members of closed batches whose reference drains, while the
// circuit keeps them from being reported.
func (b *batcher) yield() {
	if !b.yields {
		return
	}
	if b.yields = b.circuit.shut.Load(); b.yields {
		b.returnClosed(func(m *Message) bool { return m.ref.Draining() })
	}
}

// returnClosed releases the members of closed batches that pick chooses.
func (b *batcher) returnClosed(pick func(*Message) bool) {
	var chosen []*Message
	for _, shard := range b.ready {
		for _, o := range shard {
			chosen = o.strip(chosen, pick)
		}
	}
	b.giveBack(chosen)
}

// giveBack releases messages that are in no batch any more, and frees the keys that
// waited for them.
func (b *batcher) giveBack(messages []*Message) {
	for _, m := range messages {
		key := m.lane
		if b.ordered() && m.chunk.recalled.Load() {
			b.lost[key] = true
		}
		b.p.release(m) // and m is the settler's
		if k := b.blocked[key]; k != nil && k.trial == m {
			b.free(key)
		}
	}
}

// relieve closes open batches that cannot grow: all of them when nothing more
// comes; when no credit is free, the fullest that a reporter could take.
func (b *batcher) relieve() {
	flush := b.flush.Swap(false)
	switch {
	case b.p.cut.Load():
		b.giveUp()
	case flush || b.p.quiescing() && b.atRest():
		for _, o := range b.open {
			b.close(o, TriggerDrain)
		}
	case b.overfull() || b.atRest() && b.p.starved() && b.atRest(): // again: what was fetched in between has taken the credit
		fullest := b.fullestOpen()
		if fullest == nil {
			break
		}
		b.fullest.Store(int64(len(fullest.Messages)))
		if !b.p.mayRelieve(b) {
			return
		}
		b.close(fullest, TriggerPressure)
	}
	if b.fullest.Swap(0) > 0 {
		b.p.nudge() // others may have stood back for this one
	}
}

// atRest says that a worker is idle, so that no message waits before the batcher: nor
// in its mailbox, to which the worker may have handed one before it rested.
func (b *batcher) atRest() bool { return b.p.pool.quiet() && b.box.empty() }

// giveUp releases what no reporter has: their time is over.
func (b *batcher) giveUp() {
	for _, o := range b.open {
		b.close(o, TriggerDrain)
	}
	for shard, waiting := range b.ready {
		for _, o := range waiting {
			b.p.release(o.Messages...)
		}
		b.ready[shard] = nil
	}
	for _, k := range b.blocked {
		b.p.release(k.aside...)
		k.aside = nil
	}
}

// fullestOpen is the fullest open batch that a reporter could take at once, nil
// when there is none. While credit is free, and only some references are at their
// limit, it is one that holds messages of those.
func (b *batcher) fullestOpen() *openBatch {
	if int(b.reporting.Load()) >= b.cfg.Concurrency || !b.circuit.mayPass() {
		return nil
	}
	all := b.overfull() || b.p.ledger.starved()
	var fullest *openBatch
	for _, o := range b.open {
		if b.busy[o.id.shard] || len(b.ready[o.id.shard]) > 0 || fullest != nil && len(o.Messages) <= len(fullest.Messages) {
			continue
		}
		if all || slices.ContainsFunc(o.Messages, func(m *Message) bool { return m.ref.isFull() }) {
			fullest = o
		}
	}
	return fullest
}

func (b *batcher) closedCount() int {
	n := 0
	for _, shard := range b.ready {
		n += len(shard)
	}
	return n
}

// dispatch hands closed batches to idle reporters.
func (b *batcher) dispatch() {
	for tried := 0; tried < len(b.ready) && int(b.reporting.Load()) < b.cfg.Concurrency; {
		shard := b.turn % len(b.ready)
		o := b.next(shard)
		if o == nil {
			b.turn++
			tried++
			continue
		}
		pass := b.circuit.admit()
		if pass == fateHeld {
			return
		}
		b.ready[shard] = b.ready[shard][1:]
		if pass == fateTry {
			o = b.one(o)
		}
		tried = 0
		b.busy[shard] = b.ordered()
		if b.reporting.Add(1) == 1 {
			b.works(0)
		}
		b.jobs <- o // never blocks: fewer are out than there are reporters
		if b.ordered() {
			b.turn++
		}
	}
}

// next is the oldest closed batch of shard, unless one of it is in flight. A batch
// that was stripped of all its members is forgotten.
func (b *batcher) next(shard int) *openBatch {
	for len(b.ready[shard]) > 0 && !b.busy[shard] {
		if o := b.ready[shard][0]; len(o.Messages) > 0 {
			return o
		}
		b.ready[shard] = b.ready[shard][1:]
	}
	return nil
}

// one takes the first member of o, which was at the front of its shard, for a batch
// of its own, by which the circuit is tried.
func (b *batcher) one(o *openBatch) *openBatch {
	t := &openBatch{Batch: o.Batch, id: o.id, index: -1, trial: true}
	t.Messages, t.Bytes = o.Messages[:1:1], o.Messages[0].size
	if len(o.Messages) > 1 {
		o.Messages, o.Bytes = o.Messages[1:], o.Bytes-t.Bytes
		b.ready[o.id.shard] = append([]*openBatch{o}, b.ready[o.id.shard]...)
	}
	return t
}

// publish tells Stats what is open and closed.
func (b *batcher) publish() {
	b.opened.Store(int64(len(b.open)))
	b.closed.Store(int64(b.closedCount()))
}

func (b *batcher) stats() BatcherStats {
	return BatcherStats{
		Name: b.cfg.Name, Concurrency: b.cfg.Concurrency,
		Held: int(b.held.Load()), HighestHeld: int(b.highest.Load()), Bound: int(b.bound()),
		Open: int(b.opened.Load()), Closed: int(b.closed.Load()), Reporting: int(b.reporting.Load()),
		Circuit: b.circuit.stats(),
	}
}
