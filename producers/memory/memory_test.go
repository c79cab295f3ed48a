package memory_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

const plenty = 1 << 30

func payloads(n int) [][]byte {
	ps := make([][]byte, n)
	for i := range ps {
		ps[i] = fmt.Appendf(nil, "%04d", i)
	}
	return ps
}

func fetch(t *testing.T, p *memory.Producer, n int) []*broadway.Message {
	t.Helper()
	messages, err := p.Fetch(t.Context(), broadway.Demand{Messages: n, Bytes: plenty})
	if err != nil {
		t.Fatalf("Fetch: %v", err)
	}
	if len(messages) < 1 || len(messages) > n {
		t.Fatalf("Fetch returned %d messages, asked for 1 to %d", len(messages), n)
	}
	return messages
}

// settle does what a pipeline does with messages that succeeded.
func settle(t *testing.T, messages ...*broadway.Message) {
	t.Helper()
	for _, m := range messages {
		if err := m.Ref().Acknowledger().Ack(t.Context(), m.Ref(), []*broadway.Message{m}, nil); err != nil {
			t.Fatalf("Ack: %v", err)
		}
		m.Ref().Untake(1)
	}
}

func release(t *testing.T, messages ...*broadway.Message) {
	t.Helper()
	for _, m := range messages {
		r := m.Ref().Acknowledger().(broadway.Releaser)
		if err := r.Release(t.Context(), m.Ref(), []*broadway.Message{m}); err != nil {
			t.Fatalf("Release: %v", err)
		}
		m.Ref().Untake(1)
	}
}

func texts(messages []*broadway.Message) []string {
	var s []string
	for _, m := range messages {
		s = append(s, string(m.Payload))
	}
	return s
}

func partitionOf(m *broadway.Message) int { return m.Metadata.(*memory.Metadata).Partition }

func TestListIsDeliveredInOrderAndEnds(t *testing.T) {
	p := memory.New(memory.Config{Payloads: payloads(25)})
	var got []string
	for {
		messages, err := p.Fetch(t.Context(), broadway.Demand{Messages: 10, Bytes: plenty})
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, texts(messages)...)
	}
	want := texts(nil)
	for _, payload := range payloads(25) {
		want = append(want, string(payload))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestGeneratorIsAskedForNoMoreThanDemand(t *testing.T) {
	made := 0
	p := memory.New(memory.Config{Next: func(int) ([]byte, error) {
		made++
		return make([]byte, 10), nil
	}})
	for _, n := range []int{1, 7, 100} {
		before := made
		settle(t, fetch(t, p, n)...)
		if made-before != n {
			t.Errorf("asked for %d messages, generated %d", n, made-before)
		}
	}
	messages, err := p.Fetch(t.Context(), broadway.Demand{Messages: 100, Bytes: 35})
	if err != nil || len(messages) != 3 {
		t.Fatalf("35 bytes gave %d messages of 10 bytes, %v", len(messages), err)
	}
	if made != 108+4 {
		t.Errorf("generated %d for 3 that fit, want 4: the last one is kept", made-108)
	}
}

// heap is what is in use after a collection, in bytes.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func wantFlat(t *testing.T, before int64) {
	t.Helper()
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}

// A generator that goes on for ever holds what is unsettled, also while one of
// the first stays unsettled for ever.
func TestQueueHoldsOnlyWhatIsUnsettled(t *testing.T) {
	p := memory.New(memory.Config{Next: func(int) ([]byte, error) { return []byte("x"), nil }})
	stuck := fetch(t, p, 1)[0]
	before := heap()
	for n := 1; n < 200_000; {
		messages := fetch(t, p, 1000)
		n += len(messages)
		ref := messages[0].Ref()
		if err := ref.Acknowledger().Ack(t.Context(), ref, messages, nil); err != nil {
			t.Fatal(err)
		}
		ref.Untake(len(messages))
		if held := p.Queue().Len(); held != 1 {
			t.Fatalf("the queue holds %d messages, want the 1 that is unsettled", held)
		}
	}
	wantFlat(t, before)
	settle(t, stuck)
	if held := p.Queue().Len(); held != 0 {
		t.Errorf("the queue holds %d messages at the end", held)
	}
}

func TestSettledPayloadsAreLetGo(t *testing.T) {
	p := memory.New(memory.Config{Next: func(int) ([]byte, error) { return make([]byte, 1<<20), nil }})
	before := heap()
	settle(t, fetch(t, p, 32)[1:]...)
	wantFlat(t, before)
	runtime.KeepAlive(p)
}

func TestQueueThatIsNeverEmptyStaysSmall(t *testing.T) {
	p := memory.New(memory.Config{})
	push := func(n int) {
		if err := p.Push(t.Context(), payloads(n)...); err != nil {
			t.Fatal(err)
		}
	}
	push(5)
	before := heap()
	for range 20_000 {
		push(10)
		settle(t, fetch(t, p, 10)...)
	}
	wantFlat(t, before)
	if held := p.Queue().Len(); held != 5 {
		t.Errorf("the queue holds %d messages, want 5", held)
	}
}

func TestRequeueStormDoesNotGrowTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := memory.New(memory.Config{
			QueueConfig: memory.QueueConfig{Capacity: 100},
			Next:        func(int) ([]byte, error) { return []byte("x"), nil },
		})
		for range 1000 {
			release(t, fetch(t, p, 50)...)
			if held := p.Queue().Len(); held > 100 {
				t.Fatalf("the queue holds %d messages, its capacity is 100", held)
			}
		}
	})
}

func TestPushBlocksAtCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := memory.New(memory.Config{QueueConfig: memory.QueueConfig{Capacity: 3}})
		pushed := make(chan error, 1)
		go func() { pushed <- p.Push(t.Context(), payloads(5)...) }()
		synctest.Wait()
		if held := p.Queue().Len(); held != 3 {
			t.Fatalf("the queue holds %d messages, its capacity is 3", held)
		}
		if got := texts(fetch(t, p, 2)); !slices.Equal(got, []string{"0000", "0001"}) {
			t.Errorf("got %v", got)
		}
		if err := <-pushed; err != nil {
			t.Errorf("Push: %v", err)
		}
		if got := texts(fetch(t, p, 5)); !slices.Equal(got, []string{"0002", "0003", "0004"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestPushNamesWhatWasNotPushed(t *testing.T) {
	q := memory.NewQueue(memory.QueueConfig{Capacity: 2})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("had enough")
	cancel(why)
	err := q.Push(ctx, payloads(3)...)
	var pe *broadway.PublishError
	if !errors.As(err, &pe) || pe.Errs[0] != nil || pe.Errs[1] != nil || !errors.Is(pe.Errs[2], why) {
		t.Errorf("Push of 3 into room for 2: %v", err)
	}
	q.CloseInput()
	if err := q.Push(t.Context(), []byte("late")); !errors.Is(err, memory.ErrInputClosed) {
		t.Errorf("Push after CloseInput: %v", err)
	}
}

func TestFetchWakesForPushAndForCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := memory.New(memory.Config{})
		go func() {
			time.Sleep(time.Hour)
			if err := p.Push(t.Context(), []byte("a")); err != nil {
				t.Error(err)
			}
		}()
		settle(t, fetch(t, p, 10)...)
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, io.ErrNoProgress)
		defer cancel()
		before := time.Now()
		_, err := p.Fetch(ctx, broadway.Demand{Messages: 1, Bytes: plenty})
		if !errors.Is(err, io.ErrNoProgress) || time.Since(before) != time.Minute {
			t.Errorf("Fetch returned %v after %v", err, time.Since(before))
		}
	})
}

func TestFetchWakesForTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := memory.New(memory.Config{})
		go func() {
			time.Sleep(time.Hour)
			p.CloseInput()
		}()
		if _, err := p.Fetch(t.Context(), broadway.Demand{Messages: 1, Bytes: plenty}); !errors.Is(err, io.EOF) {
			t.Errorf("Fetch: %v", err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if _, err := p.Fetch(t.Context(), broadway.Demand{Messages: 1, Bytes: plenty}); !errors.Is(err, memory.ErrClosed) {
			t.Errorf("Fetch after Close: %v", err)
		}
	})
}

func TestReleasedComesAgainAfterItsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := memory.New(memory.Config{
			QueueConfig: memory.QueueConfig{RedeliverAfter: time.Minute}, Payloads: payloads(4),
		})
		first := fetch(t, p, 4)
		id := first[2].ID()
		settle(t, first[0], first[3])
		release(t, first[2], first[1])
		before := time.Now()
		again := fetch(t, p, 4)
		if got := texts(again); !slices.Equal(got, []string{"0001", "0002"}) {
			t.Errorf("redelivered %v, in the order of the queue", got)
		}
		if wait := time.Since(before); wait != time.Minute {
			t.Errorf("redelivered after %v", wait)
		}
		for _, m := range again {
			if !m.Redelivered || m.Metadata.(*memory.Metadata).Deliveries != 2 {
				t.Errorf("%s is not marked as redelivered", m.ID())
			}
		}
		if again[1].ID() != id {
			t.Errorf("the id changed from %s to %s", id, again[1].ID())
		}
		settle(t, again...)
		if _, err := p.Fetch(t.Context(), broadway.Demand{Messages: 1, Bytes: plenty}); !errors.Is(err, io.EOF) {
			t.Errorf("Fetch at the end: %v", err)
		}
	})
}

// What does not fit comes first the next time: small messages of another
// partition do not keep it waiting for ever.
func TestBigMessageIsNotStarved(t *testing.T) {
	sizes := [][]int{{10, 500}, nil}
	p := memory.New(memory.Config{
		QueueConfig: memory.QueueConfig{Partitions: 2},
		Next: func(i int) ([]byte, error) {
			size := 10
			if len(sizes[i]) > 0 {
				size, sizes[i] = sizes[i][0], sizes[i][1:]
			}
			return make([]byte, size), nil
		},
	})
	for range 5 {
		messages, err := p.Fetch(t.Context(), broadway.Demand{Messages: 2, Bytes: 100})
		if need, ok := broadway.NeededBytes(err); ok && need == 500 {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		settle(t, messages...)
	}
	t.Error("the big message was passed by five times")
}

// Between an Ack and the moment in which the pipeline counts it, a reference
// refuses what its lease has room for; Fetch must not sleep through it. Two
// partitions of one message each make that happen at every message; no time
// passes while they flow.
func TestFetchNoticesRoomThatComesAfterTheAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		payloads := make([][]byte, 200)
		pipeline, err := broadway.New(broadway.Config{
			Producers:    []broadway.Producer{memory.New(memory.Config{QueueConfig: memory.QueueConfig{Partitions: 2}, Payloads: payloads})},
			Processor:    broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error { return nil }},
			MaxUnsettled: 2,
		})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := pipeline.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st := pipeline.Stats(); st.Succeeded != 200 || time.Since(start) != 0 {
			t.Errorf("%d succeeded after %v", st.Succeeded, time.Since(start))
		}
	})
}

func TestBigMessageAsksForBytesAndKeepsItsPlace(t *testing.T) {
	p := memory.New(memory.Config{Payloads: [][]byte{make([]byte, 10), make([]byte, 1000), make([]byte, 10)}})
	d := broadway.Demand{Messages: 10, Bytes: 100}
	if messages, err := p.Fetch(t.Context(), d); err != nil || len(messages) != 1 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	for range 2 {
		messages, err := p.Fetch(t.Context(), d)
		if need, ok := broadway.NeededBytes(err); !ok || need != 1000 || len(messages) != 0 {
			t.Fatalf("%d messages, %v", len(messages), err)
		}
	}
	messages, err := p.Fetch(t.Context(), broadway.Demand{Messages: 10, Bytes: 1005})
	if err != nil || len(messages) != 1 || messages[0].Size() != 1000 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
}

func TestKeyAndHeadersAreKeptAndWeighed(t *testing.T) {
	q := memory.NewQueue(memory.QueueConfig{Name: "orders", Partitions: 8})
	p := memory.New(memory.Config{Queue: q})
	record := broadway.Record{
		Key: []byte("k"), Payload: nil,
		Headers: []broadway.Header{{Key: "a", Value: nil}, {Key: "a", Value: []byte{}}},
	}
	for range 3 {
		if err := q.Publish(t.Context(), record); err != nil {
			t.Fatal(err)
		}
	}
	messages := fetch(t, p, 10)
	if len(messages) != 3 {
		t.Fatalf("records of one key lie in more than one partition: the first holds %d", len(messages))
	}
	m := messages[0]
	e := m.Metadata.(broadway.Enveloped)
	h := e.MessageHeaders()
	if m.Payload != nil || string(e.MessageKey()) != "k" || len(h) != 2 || h[0].Value != nil || h[1].Value == nil {
		t.Errorf("payload %v, key %q, headers %v", m.Payload, e.MessageKey(), h)
	}
	if e.MessageOrigin() != "orders" || m.ID() != "orders/1" || m.Size() != 3 {
		t.Errorf("origin %s, id %s, size %d", e.MessageOrigin(), m.ID(), m.Size())
	}
}

func TestCutEndsTheSession(t *testing.T) {
	p := memory.New(memory.Config{Payloads: payloads(3)})
	old := fetch(t, p, 3)
	p.Cut()
	if !old[0].Ref().Ended() {
		t.Error("the reference has not ended")
	}
	again := fetch(t, p, 3)
	if again[0].Ref() == old[0].Ref() || !slices.Equal(texts(again), texts(old)) {
		t.Errorf("redelivered %v", texts(again))
	}
	if err := old[0].Ref().Acknowledger().Ack(t.Context(), old[0].Ref(), old, nil); err == nil {
		t.Error("a settle that comes too late says nothing")
	}
	if n := p.Queue().Unsettled(); n != 3 || p.Counts().Stale != 3 || p.Counts().Succeeded != 0 {
		t.Errorf("after a stale settle %d are unsettled, counts %+v", n, p.Counts())
	}
	settle(t, again...)
	settle(t, again[0:0]...)
	if c := p.Counts(); p.Queue().Len() != 0 || c.Succeeded != 3 || c.Delivered != 6 {
		t.Errorf("counts %+v", c)
	}
}

func TestSecondSettleIsCountedOnly(t *testing.T) {
	p := memory.New(memory.Config{Payloads: payloads(2)})
	m := fetch(t, p, 2)
	ref := m[0].Ref()
	for range 2 {
		if err := ref.Acknowledger().Ack(t.Context(), ref, m[:1], nil); err != nil {
			t.Fatal(err)
		}
	}
	if c := p.Counts(); c.Succeeded != 1 || c.Stale != 1 || p.Queue().Unsettled() != 1 {
		t.Errorf("counts %+v, unsettled %d", c, p.Queue().Unsettled())
	}
}

func TestWrongConfigsNameTheField(t *testing.T) {
	next := func(int) ([]byte, error) { return nil, io.EOF }
	for _, c := range []struct {
		name string
		cfg  memory.Config
		want []string
	}{
		{"none", memory.Config{}, nil},
		{"two sources", memory.Config{Payloads: payloads(1), Next: next}, []string{"at most one"}},
		{"both queues", memory.Config{Queue: memory.NewQueue(memory.QueueConfig{}), QueueConfig: memory.QueueConfig{Name: "x"}}, []string{"QueueConfig"}},
		{"negatives", memory.Config{QueueConfig: memory.QueueConfig{Partitions: -1, Capacity: -2, RedeliverAfter: -3}},
			[]string{"Partitions: -1", "Capacity: -2", "RedeliverAfter: -3"}},
		{"negatives of a shared queue", memory.Config{Queue: memory.NewQueue(memory.QueueConfig{Capacity: -2})}, []string{"Capacity: -2"}},
	} {
		err := memory.New(c.cfg).Validate()
		if (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v", c.name, err)
		}
		for _, part := range c.want {
			if !strings.Contains(fmt.Sprint(err), part) {
				t.Errorf("%s: %q is not in %v", c.name, part, err)
			}
		}
	}
}

func TestGeneratorErrorIsReturnedAndTriedAgain(t *testing.T) {
	broken := errors.New("no paper")
	calls := 0
	p := memory.New(memory.Config{Next: func(int) ([]byte, error) {
		calls++
		if calls == 2 {
			return nil, broken
		}
		return []byte{byte(calls)}, nil
	}})
	if _, err := p.Fetch(t.Context(), broadway.Demand{Messages: 3, Bytes: plenty}); !errors.Is(err, broken) {
		t.Fatalf("Fetch: %v", err)
	}
	if got := texts(fetch(t, p, 3)); !slices.Equal(got, []string{"\x01", "\x03", "\x04"}) {
		t.Errorf("got %q", got)
	}
}
