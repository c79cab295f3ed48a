package broadway

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// keptModel says what is in memory on behalf of the engine, by another way than
// the ledger's: a slab with everything that came in it while one of its messages
// lives there, and otherwise each live message and the array of Messages.
type keptModel struct {
	slab  bool
	all   map[*Message]int64 // sizes, of what came
	alive map[*Message]bool
}

func (k *keptModel) bytes() (n int64) {
	if len(k.alive) == 0 {
		return 0
	}
	for m, size := range k.all {
		n += MessageOverhead
		if k.slab || k.alive[m] {
			n += size
		}
	}
	return n
}

// ledgerWorld is a ledger with one source, and what it should hold.
type ledgerWorld struct {
	ledger *ledger
	source *source
	kept   map[*chunk]*keptModel
	live   []*Message
	asked  Demand
	need   int64 // of the message that is too large for what was asked
	alone  int64 // the charge of the largest message that passed alone
}

func newLedgerWorld(t *rapid.T) *ledgerWorld {
	s := &source{p: &Pipeline{}, filled: true, wake: make(chan struct{}, 1)}
	bound := rapid.Int64Range(1, 20_000).Draw(t, "bound")
	l := newLedger(rapid.Int64Range(1, 50).Draw(t, "messages"), bound, []*source{s})
	l.started(l.sources)
	return &ledgerWorld{ledger: l, source: s, kept: map[*chunk]*keptModel{}}
}

func (w *ledgerWorld) ask(t *rapid.T) {
	if w.asked.Messages > 0 {
		return
	}
	w.asked, _ = w.ledger.tryAsk(w.source, int64(rapid.IntRange(1, 20).Draw(t, "want")), 0, w.need)
	if w.asked.Messages == 0 && len(w.live) == 0 {
		t.Fatal("nothing is unsettled, and nothing may come")
	}
	w.alone = max(w.alone, w.need+MessageOverhead)
}

// arrive answers the ask, with slabs and without, or with a message too large.
func (w *ledgerWorld) arrive(t *rapid.T) {
	if w.asked.Messages == 0 {
		return
	}
	var messages []*Message
	left, ref := w.asked.Bytes, NewAckRef(nil, nil, 0)
	shared := rapid.Bool().Draw(t, "shared")
	for range rapid.IntRange(0, w.asked.Messages).Draw(t, "n") {
		size := rapid.Int64Range(0, 3000).Draw(t, "size")
		if size > left {
			if w.need = 0; len(messages) == 0 {
				w.need = size
			}
			break
		}
		w.need = 0
		left -= size
		m := NewMessage(ref, int64(len(messages)), nil)
		m.SetSize(size)
		m.state = stateClaimed
		if shared && (len(messages) == 0 || rapid.Bool().Draw(t, "begins")) {
			m.BeginSlab()
		}
		messages = append(messages, m)
	}
	chunks := w.source.accept(messages).chunks
	for _, c := range chunks {
		k := &keptModel{slab: shared, all: map[*Message]int64{}, alive: map[*Message]bool{}}
		for _, m := range c.messages {
			k.all[m], k.alive[m] = m.size, true
		}
		w.kept[c] = k
	}
	w.ledger.arrived(w.source, w.asked, chunks, w.asked.Bytes-left)
	w.asked = Demand{}
	w.live = append(w.live, messages...)
}

func (w *ledgerWorld) settle(t *rapid.T) {
	if len(w.live) == 0 {
		return
	}
	i := rapid.IntRange(0, len(w.live)-1).Draw(t, "which")
	m := w.live[i]
	w.live = append(w.live[:i], w.live[i+1:]...)
	delete(w.kept[m.chunk].alive, m)
	w.ledger.settled(w.source, each(m), nil)
}

// each is a settlement for each message.
func each(messages ...*Message) (list []settlement) {
	for _, m := range messages {
		list = append(list, settlement{chunk: m.chunk, messages: []*Message{m}})
	}
	return list
}

// leave copies one out, as the stages do that keep messages.
func (w *ledgerWorld) leave(t *rapid.T) {
	if len(w.live) == 0 {
		return
	}
	m := w.live[rapid.IntRange(0, len(w.live)-1).Draw(t, "which")]
	old := w.kept[m.chunk]
	free := w.ledger.bytes.Free()
	if _, left := w.ledger.leave(m); !left {
		if last := len(old.alive) == 1; last && len(old.all) > 1 && free >= 0 {
			t.Fatal("the last of many was not let go")
		}
		return
	}
	delete(old.alive, m)
	if old.slab {
		w.kept[m.chunk] = &keptModel{slab: true, all: map[*Message]int64{m: m.size}, alive: map[*Message]bool{m: true}}
		return
	}
	// What it holds besides the Message was its own before.
	w.kept[m.chunk] = &keptModel{all: map[*Message]int64{m: m.size}, alive: map[*Message]bool{m: true}}
}

func (w *ledgerWorld) check(t *rapid.T) {
	var want int64
	for _, k := range w.kept {
		want += k.bytes()
	}
	c := w.ledger.bytes
	if c.Taken() != want {
		t.Fatalf("%d bytes are charged, and %d are in memory", c.Taken(), want)
	}
	if c.Taken()+c.Reserved() > max(c.Bound(), w.alone) {
		t.Fatalf("%d charged, %d asked for, of %d", c.Taken(), c.Reserved(), c.Bound())
	}
	if len(w.live) == 0 && (c.Taken() != 0 || w.ledger.oldest != nil || w.ledger.newest != nil) {
		t.Fatalf("nothing is unsettled, and %d bytes are charged", c.Taken())
	}
	n := 0
	for k := w.ledger.oldest; k != nil; k = k.next {
		if n += k.remaining; k.next != nil && (k.next.prev != k || k.next.fetchedAt.Before(k.fetchedAt)) {
			t.Fatal("the list of chunks is not in order")
		}
	}
	if n != len(w.live) {
		t.Fatalf("the chunks count %d messages, and %d are unsettled", n, len(w.live))
	}
}

// TestTheLedgerChargesWhatIsInMemory: whatever comes, settles and is copied out,
// in any order, the bytes that are charged are those that are kept.
func TestTheLedgerChargesWhatIsInMemory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newLedgerWorld(t)
		t.Repeat(map[string]func(*rapid.T){
			"ask": w.ask, "arrive": w.arrive, "settle": w.settle, "leave": w.leave, "": w.check,
		})
	})
}

// TestAMessageIsCopiedOutOfItsSlab: a message that is kept shares nothing with its
// slab any more, nil stays nil, and the slab is not charged. It is the same Message
// only where that lies in no array, and nobody looks at it: an open circuit holds
// first attempts, too, and marks them as retries.
func TestAMessageIsCopiedOutOfItsSlab(t *testing.T) {
	s := &source{p: &Pipeline{}, filled: true, wake: make(chan struct{}, 1)}
	l := newLedger(10, 1<<20, []*source{s})
	s.p.ledger = l
	l.started(l.sources)
	d, _ := l.tryAsk(s, 4, 0, 0)
	array := []byte("abcdef")
	ref := NewAckRef(nil, nil, 0)
	messages := []*Message{NewMessage(ref, 0, array[:3:3]), NewMessage(ref, 1, array[3:]), NewMessage(ref, 2, nil), NewMessage(ref, 3, nil)}
	messages[0].BeginSlab()
	messages[0].retry = true // as it is once a circuit has held it
	for _, m := range messages {
		m.state = stateClaimed
	}
	l.arrived(s, d, s.accept(messages).chunks, 6)
	again, looked := messages[2].again(1, nil), messages[3].again(1, nil)
	looked.pins.Add(1)
	one, none, other := s.p.apart(messages[0]), s.p.apart(again), s.p.apart(looked)
	l.settled(s, each(messages[1]), nil)
	array[0] = 'X'
	if string(one.Payload) != "abc" || one == messages[0] || messages[0].Payload != nil {
		t.Errorf("the copy holds %q, and the old message %q", one.Payload, messages[0].Payload)
	}
	if none != again || none.Payload != nil || other == looked {
		t.Errorf("a copy of nil is %v", none.Payload)
	}
	if got, want := l.bytes.Taken(), int64(3+3*MessageOverhead); got != want {
		t.Errorf("%d bytes are charged, want %d", got, want)
	}
	l.settled(s, each(one, none, other), nil)
	if l.bytes.Taken() != 0 || l.age(time.Now()) != 0 {
		t.Errorf("%d bytes are charged in the end", l.bytes.Taken())
	}
}

// TestOthersStandBackOnlyForWhoCanGoFirst: a source that waits for a large message
// interrupts the others once what it waits for are bytes, which nobody else gets then.
// While it waits for something else, or for nothing, they would be interrupted again
// and again.
func TestOthersStandBackOnlyForWhoCanGoFirst(t *testing.T) {
	for _, c := range []struct {
		name  string
		other int64 // messages that the other source has
		want  int64
		first bool
	}{
		{"for bytes", 1, 1, true},
		{"for a message", 2, 1, false},
		{"for nothing", 1, 0, false},
	} {
		p := &Pipeline{}
		one, other := &source{p: p, filled: true, wake: make(chan struct{}, 1)}, &source{p: p, filled: true, wake: make(chan struct{}, 1)}
		p.sources = []*source{one, other}
		p.ledger = newLedger(2, 5000, p.sources)
		p.ledger.started(p.sources)
		p.ledger.shared.Reserve(c.other)
		p.ledger.bytes.Reserve(c.other * leastCharge)
		interrupted := false
		other.begin(Demand{Messages: 1, Bytes: 1}, func(error) { interrupted = true })
		if d, _ := p.ledger.tryAsk(one, 1, 0, 4500); d.Messages > 0 {
			t.Fatalf("%s: it has nothing to wait for", c.name)
		}
		if c.want == 0 {
			_, _ = p.ledger.tryAsk(one, 0, 0, 4500)
		}
		one.starve(4500)
		if interrupted != c.first {
			t.Errorf("%s: the other source is interrupted: %v", c.name, interrupted)
		}
	}
}
