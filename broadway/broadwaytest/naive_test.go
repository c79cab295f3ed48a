package broadwaytest_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

// defect is one way in which a producer breaks its contract.
type defect string

const (
	none                    defect = ""
	returnsOverDemand       defect = "returns over demand"
	returnsOverBytes        defect = "returns over bytes"
	fetchesAhead            defect = "fetches ahead without demand"
	claimsNothing           defect = "claims nothing"
	returnsWhenEmpty        defect = "returns an error when empty"
	ignoresCancel           defect = "ignores cancel"
	losesOnCancel           defect = "loses a message on cancel"
	keepsOnDrain            defect = "keeps what it prefetched"
	forgetsUnsettled        defect = "does not redeliver"
	leavesReferences        defect = "leaves its references open"
	swallowsRelease         defect = "swallows a release"
	settlesTwice            defect = "settles twice"
	settlesAfterFetch       defect = "settles when no Fetch runs"
	sendsStaleSettles       defect = "sends stale settles"
	reorders                defect = "reorders"
	hasNoMetadata           defect = "has no metadata"
	reusesPayloads          defect = "reuses payload memory"
	renamesRedelivered      defect = "renames what it redelivers"
	swallowsReject          defect = "leaves what is rejected"
	goesOnWhenStopped       defect = "goes on with a stopped partition"
	neverEnds               defect = "never ends"
	settlesPrefix           defect = "settles all up to a position"
	failsEmptyCalls         defect = "fails on empty calls"
	dropsFailed             defect = "ignores the failed of a mixed call"
	forgetsCrashes          defect = "forgets crashes"
	suspectsAll             defect = "suspects what did not crash"
	liesAboutCancelledCalls defect = "drops a settle whose context has ended"
)

// broker is the naive other side of a naive producer: slices and a lock.
type broker struct {
	defect defect

	mu       sync.Mutex // protects following fields
	queue    []item
	out      map[int64]item // unsettled, by number
	last     int64
	losing   bool
	settles  int
	finished bool
	crashed  bool // since then messages are delivered one at a time
	changed  chan struct{}
	opened   *naive
}

type item struct {
	number    int64
	payload   []byte
	delivered int
	crashes   int
}

func (i item) id(d defect) string {
	if d == renamesRedelivered {
		return fmt.Sprintf("%d/%d", i.number, i.delivered)
	}
	return fmt.Sprint(i.number)
}

type metadata string

func (m metadata) MessageID() string { return string(m) }

func newBroker(d defect) *broker {
	return &broker{defect: d, out: map[int64]item{}, changed: make(chan struct{})}
}

func (b *broker) Produce(_ context.Context, payloads ...[]byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, payload := range payloads {
		if b.losing {
			b.losing = false
			continue
		}
		b.last++
		b.queue = append(b.queue, item{number: b.last, payload: payload})
	}
	b.wake()
	return nil
}

// wake is called with b.mu held.
func (b *broker) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *broker) Open(testing.TB) broadway.Producer {
	b.opened = &naive{broker: b, closing: make(chan struct{}), fetching: make(chan struct{}, 1)}
	return b.opened
}

func (b *broker) Left(context.Context) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue) + len(b.out), nil
}

func (b *broker) HandedOut(context.Context) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.out), nil
}

func (b *broker) Settles(context.Context) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.settles, nil
}

func (b *broker) Cut(context.Context) error {
	b.opened.endSession(true)
	return nil
}

// Crash counts an attempt at each message that is unsettled: after a crash the
// producer takes a message only when it has no other.
func (b *broker) Crash(context.Context) error {
	b.mu.Lock()
	for number, i := range b.out {
		if b.defect != forgetsCrashes {
			i.crashes++
			b.out[number] = i
		}
	}
	b.crashed, b.opened.dead = true, true
	b.mu.Unlock()
	b.opened.endSession(true)
	b.opened.once.Do(func() { close(b.opened.closing) }) // and Close does nothing more
	return nil
}

func (b *broker) Finish(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finished = b.defect != neverEnds
	b.wake()
	return nil
}

// giveBack puts unsettled items into the queue again.
func (b *broker) giveBack(numbers ...int64) {
	for _, n := range numbers {
		if i, ok := b.out[n]; ok {
			b.queue = append(b.queue, i)
			delete(b.out, n)
		}
	}
	slices.SortFunc(b.queue, func(a, b item) int { return cmp.Compare(a.number, b.number) })
	b.wake()
}

// naive is a producer with one defect, or none.
type naive struct {
	*broker
	closing  chan struct{}
	fetching chan struct{} // holds one while a Fetch runs
	once     sync.Once
	buffer   []byte

	// Protected by the broker's lock.
	ref     *broadway.AckRef
	ahead   []*broadway.Message
	stopped bool
	dead    bool
}

func (n *naive) Describe(broadway.Limits) broadway.Traits {
	t := broadway.Traits{Kind: "naive", Actions: broadway.ActionSet(
		broadway.ActionReject, broadway.ActionRequeue, broadway.ActionRequeueOnce, broadway.ActionStopPartition)}
	if n.defect == keepsOnDrain {
		t.Prefetch = 7
		t.Actions = 0 // stopping would show the defect, too
	}
	return t
}

func (n *naive) Fetch(ctx context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	n.fetching <- struct{}{}
	defer func() { <-n.fetching }()
	n.buffer = n.buffer[:0]
	for {
		messages, changed, err := n.take(d)
		if len(messages) > 0 || err != nil {
			return messages, err
		}
		select {
		case <-changed:
		case <-n.closing:
			return nil, io.ErrClosedPipe
		case <-n.done(ctx):
			if n.defect == losesOnCancel {
				n.lose()
			}
			return nil, context.Cause(ctx)
		}
	}
}

func (n *naive) done(ctx context.Context) <-chan struct{} {
	if n.defect == ignoresCancel {
		return nil
	}
	return ctx.Done()
}

// lose makes the next message that is produced vanish.
func (n *naive) lose() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.losing = true
}

func (n *naive) take(d broadway.Demand) ([]*broadway.Message, <-chan struct{}, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.defect == returnsWhenEmpty && len(n.queue) == 0 && !n.finished {
		return nil, nil, io.ErrNoProgress
	}
	if n.stopped || n.dead {
		return nil, n.changed, nil
	}
	want, bytes := d.Messages, d.Bytes
	switch n.defect {
	case returnsOverDemand:
		want++
	case returnsOverBytes:
		bytes = 1 << 40
	case fetchesAhead, keepsOnDrain:
		want += 7
	}
	if n.crashed && n.defect != suspectsAll {
		if want = 1; len(n.out) > 0 {
			return nil, n.changed, nil
		}
	}
	if n.ref == nil {
		n.ref = broadway.NewAckRef(n, n, 0)
	}
	messages := n.ahead
	n.ahead = nil
	for len(messages) < want && len(n.queue) > 0 {
		i := n.queue[0]
		if size := int64(len(i.payload)); size > bytes {
			if len(messages) == 0 {
				return nil, nil, broadway.NeedBytes(size)
			}
			break
		}
		bytes -= int64(len(i.payload))
		n.queue = n.queue[1:]
		messages = append(messages, n.message(i))
	}
	if n.defect == fetchesAhead || n.defect == keepsOnDrain {
		fits := fit(messages, d)
		if fits == 0 && len(messages) > 0 {
			n.ahead = messages
			return nil, nil, broadway.NeedBytes(messages[0].Size())
		}
		messages, n.ahead = messages[:fits:fits], messages[fits:]
	}
	if n.defect != claimsNothing {
		n.ref.Take(len(messages))
	}
	if n.defect == reorders {
		slices.Reverse(messages)
	}
	if len(messages) == 0 && n.finished {
		return nil, nil, io.EOF
	}
	return messages, n.changed, nil
}

// fit is how many of messages d allows.
func fit(messages []*broadway.Message, d broadway.Demand) int {
	for i, m := range messages {
		d.Bytes -= m.Size()
		if i == d.Messages || d.Bytes < 0 {
			return i
		}
	}
	return len(messages)
}

func (n *naive) message(i item) *broadway.Message {
	i.delivered++
	n.out[i.number] = i
	payload := i.payload
	if n.defect == reusesPayloads {
		start := len(n.buffer)
		n.buffer = append(n.buffer, payload...)
		payload = n.buffer[start:]
	}
	m := broadway.NewMessage(n.ref, i.number, payload)
	m.Redelivered, m.Attempt = i.delivered > 1, 1+i.crashes
	if n.defect != hasNoMetadata {
		m.Metadata = metadata(i.id(n.defect))
	}
	return m
}

func (n *naive) settleOne(number int64) {
	n.settles++
	if n.defect == settlesTwice {
		n.settles++
	}
	delete(n.out, number)
	defer n.wake()
	if n.defect == settlesPrefix {
		for other := range n.out {
			if other < number {
				delete(n.out, other)
			}
		}
	}
}

func (n *naive) Ack(ctx context.Context, ref *broadway.AckRef, ok, failed []*broadway.Message) error {
	if n.defect == settlesAfterFetch {
		n.fetching <- struct{}{}
		defer func() { <-n.fetching }()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if ref != n.ref && n.defect != sendsStaleSettles {
		return nil
	}
	if n.defect == failsEmptyCalls && len(ok)+len(failed) == 0 {
		return io.ErrUnexpectedEOF
	}
	if n.defect == liesAboutCancelledCalls && ctx.Err() != nil {
		n.giveBackAll(ok)
		return nil
	}
	if n.defect == dropsFailed && len(ok) > 0 {
		failed = nil
	}
	for _, m := range ok {
		n.settleOne(m.Seq())
	}
	for _, m := range failed {
		switch {
		case m.Action() == broadway.ActionRequeue:
			n.giveBack(m.Seq())
		case m.Action() == broadway.ActionReject && n.defect == swallowsReject:
		case m.Action() == broadway.ActionStopPartition:
			n.stopped = n.defect != goesOnWhenStopped
			n.giveBack(m.Seq())
		default:
			n.settleOne(m.Seq())
		}
	}
	return nil
}

func (n *naive) giveBackAll(messages []*broadway.Message) {
	for _, m := range messages {
		n.giveBack(m.Seq())
	}
}

func (n *naive) Release(_ context.Context, ref *broadway.AckRef, messages []*broadway.Message) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ref == n.ref && n.defect != swallowsRelease {
		n.giveBackAll(messages)
	}
	return nil
}

// endSession ends the reference and gives back what is unsettled, unless the
// producer forgets that when it closes.
func (n *naive) endSession(redeliver bool) {
	n.mu.Lock()
	ref := n.ref
	n.ref = nil
	kept := n.ahead
	n.ahead = nil
	if n.defect == keepsOnDrain && !redeliver {
		for _, m := range kept {
			delete(n.out, m.Seq())
		}
	}
	for number := range n.out {
		if n.defect == forgetsUnsettled && !redeliver {
			delete(n.out, number)
		}
		n.giveBack(number)
	}
	n.mu.Unlock()
	if ref != nil && (n.defect != leavesReferences || redeliver) {
		ref.End()
	}
}

func (n *naive) Close() error {
	n.once.Do(func() {
		close(n.closing)
		n.endSession(false)
	})
	return nil
}

var (
	_ broadwaytest.Cutter        = (*broker)(nil)
	_ broadwaytest.Crasher       = (*broker)(nil)
	_ broadwaytest.Finisher      = (*broker)(nil)
	_ broadwaytest.Meter         = (*broker)(nil)
	_ broadwaytest.SettleCounter = (*broker)(nil)
)
