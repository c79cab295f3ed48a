package ingest_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/examples/news/internal/ingest"
	"github.com/gobroadway/gobroadway/examples/news/internal/post"
	"github.com/gobroadway/gobroadway/examples/news/internal/standin"
)

func producer(t *testing.T, posts int, options ...ingest.ProducerOption) (*ingest.Producer, *memory, *standin.World) {
	t.Helper()
	w := serve(t, standin.Config{Seed: 3, Posts: posts, Rate: unlimited})
	store := &memory{}
	c, err := ingest.LoadCursor(t.Context(), store, "x")
	if err != nil {
		t.Fatal(err)
	}
	tl := timelines(t, ingest.Config{Server: w.PostsURL(), Limit: posts})
	return ingest.NewProducer(tl, c, options...), store, w
}

func fetch(t *testing.T, p *ingest.Producer, messages int, bytes int64) []*broadway.Message {
	t.Helper()
	got, err := p.Fetch(t.Context(), broadway.Demand{Messages: messages, Bytes: bytes})
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, m := range got {
		sum += m.Size()
	}
	if len(got) == 0 || len(got) > messages || sum > bytes {
		t.Fatalf("%d messages of %d bytes for a demand of %d and %d", len(got), sum, messages, bytes)
	}
	return got
}

func ack(t *testing.T, ok, failed []*broadway.Message) {
	t.Helper()
	ref := append(append([]*broadway.Message{}, ok...), failed...)[0].Ref()
	if err := ref.Acknowledger().Ack(t.Context(), ref, ok, failed); err != nil {
		t.Fatal(err)
	}
}

func TestFetchReturnsPostsWithinDemand(t *testing.T) {
	p, _, w := producer(t, 60)
	if n := w.Ledger().Counts().Calls; n != 0 {
		t.Errorf("%d calls without demand", n)
	}
	total := 0
	for total < 60 {
		for _, m := range fetch(t, p, 7, 30_000) {
			one, err := post.Decode(m.Payload)
			if err != nil || m.ID() != one.ID {
				t.Errorf("message %s holds %+v, %v", m.ID(), one, err)
			}
			total++
		}
	}
}

func TestAPostLargerThanTheDemandSaysItsSize(t *testing.T) {
	p, _, _ := producer(t, 10)
	_, err := p.Fetch(t.Context(), broadway.Demand{Messages: 5, Bytes: 10})
	need, is := broadway.NeededBytes(err)
	if !is {
		t.Fatal(err)
	}
	if got := fetch(t, p, 1, need); got[0].Size() != need {
		t.Errorf("%d bytes were needed, %d came", need, got[0].Size())
	}
}

func TestTheSourceEndsAfterItsLimit(t *testing.T) {
	p, _, _ := producer(t, 3)
	for n := 0; n < 3; {
		n += len(fetch(t, p, 10, 1<<20))
	}
	if _, err := p.Fetch(t.Context(), broadway.Demand{Messages: 1, Bytes: 1 << 20}); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestAcknowledgingMovesTheCursorOverTheSettledPrefix(t *testing.T) {
	p, store, _ := producer(t, 10)
	m := fetch(t, p, 10, 1<<20)
	ack(t, m[1:3], nil)
	if store.pos.Settled != 0 {
		t.Fatalf("%+v: the first post is open", store.pos)
	}
	ack(t, nil, m[:1]) // failed for good: its policy has dealt with it
	if store.pos != (ingest.Position{After: m[2].ID(), Settled: 3}) {
		t.Errorf("%+v", store.pos)
	}
}

func TestAForgetfulQueueDoesNotMoveTheCursor(t *testing.T) {
	p, store, _ := producer(t, 10, ingest.CursorElsewhere())
	ack(t, fetch(t, p, 10, 1<<20), nil)
	if store.pos.Settled != 0 {
		t.Errorf("%+v", store.pos)
	}
}

func TestAFullWindowStopsTheCalls(t *testing.T) {
	window := ingest.NewWindow(45, 0)
	p, _, w := producer(t, 200, ingest.WithWindow(window))
	got := 0
	for got < 45 {
		got += len(fetch(t, p, 20, 1<<20))
	}
	calls := w.Ledger().Counts().Calls
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if m, err := p.Fetch(ctx, broadway.Demand{Messages: 20, Bytes: 1 << 20}); err == nil {
		t.Errorf("%d messages beyond the window", len(m))
	}
	if n := w.Ledger().Counts().Calls; n != calls || window.Highest() != 45 {
		t.Errorf("%d calls with a full window, highest %d", n-calls, window.Highest())
	}
	window.Return(10)
	if n := len(fetch(t, p, 20, 1<<20)); n != 10 {
		t.Errorf("%d messages for 10 credits", n)
	}
}

func TestClosingGivesBackTheCreditOfPostsThatNeverWentOut(t *testing.T) {
	window := ingest.NewWindow(10, 0)
	p, _, _ := producer(t, 10, ingest.WithWindow(window))
	if _, err := p.Fetch(t.Context(), broadway.Demand{Messages: 5, Bytes: 1}); err == nil {
		t.Fatal("a post of one byte")
	}
	if err := p.Close(); err != nil || window.Out() != 0 {
		t.Errorf("%d out, %v", window.Out(), err)
	}
}

func release(t *testing.T, messages []*broadway.Message) {
	t.Helper()
	ref := messages[0].Ref()
	ref.Untake(len(messages))
	if err := ref.Acknowledger().(broadway.Releaser).Release(t.Context(), ref, messages); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsGivenBackComesAgain(t *testing.T) {
	p, store, _ := producer(t, 10)
	var all []*broadway.Message
	for len(all) < 10 {
		all = append(all, fetch(t, p, 10, 1<<20)...)
	}
	release(t, all[2:4])
	again := fetch(t, p, 10, 1<<20)
	if len(again) != 2 || again[0].ID() != all[2].ID() || !again[0].Redelivered || all[0].Redelivered || again[0].Seq() == all[2].Seq() {
		t.Errorf("%d messages came again", len(again))
	}
	ack(t, append(all[:2:2], all[4:]...), nil)
	if store.pos.Settled != 2 {
		t.Errorf("%+v", store.pos)
	}
	if ack(t, again, nil); store.pos.Settled != 10 {
		t.Errorf("%+v", store.pos)
	}
	if _, err := p.Fetch(t.Context(), broadway.Demand{Messages: 1, Bytes: 1 << 20}); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestWhatIsGivenBackDoesNotWaitForTheWindowThatItFills(t *testing.T) {
	window := ingest.NewWindow(5, 0)
	p, _, _ := producer(t, 50, ingest.WithWindow(window))
	var all []*broadway.Message
	for len(all) < 5 {
		all = append(all, fetch(t, p, 5, 1<<20)...)
	}
	got := make(chan int)
	go func() { got <- len(fetch(t, p, 5, 1<<20)) }() // waits for the window
	release(t, all)
	if n := <-got; n != 5 || window.Out() != 5 {
		t.Errorf("%d messages, %d out", n, window.Out())
	}
}
