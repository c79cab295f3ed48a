package rabbitmq_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// However the server ends what a consumer has, the epoch ends, its settles reach
// nobody, the reason is logged, and one new consumer gets the messages again.
func TestHoweverAServerEndsASession(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*peer)
		want string
	}{
		// RabbitMQ 4.3, quorum queues; the channel stays open.
		{"acknowledgement time-out", (*peer).cancelConsumers, "consumer_timeout"},
		// RabbitMQ before 4.3.
		{"acknowledgement time-out closes the channel", func(p *peer) {
			p.closeChannels(406, "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out")
		}, "delivery acknowledgement on channel 1 timed out (406)"},
		{"internal error", func(p *peer) { p.closeChannels(541, "INTERNAL_ERROR") }, "INTERNAL_ERROR (541)"},
		{"shutdown", (*peer).closeConnections, "CONNECTION_FORCED"},
		{"lost", (*peer).cut, "session lost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newPeer(t, payloads(3)...)
			var log logBuffer
			p := connect(t, rabbitmq.Config{URL: server.url(), Queue: "orders", Logger: slog.New(slog.NewTextHandler(&log, nil))}, 10)
			m := fetch(t, p, 3)
			ack(t, m[0])
			if !poll(func() bool { return server.left() == 2 }) {
				t.Fatalf("sent %q", server.log())
			}
			tt.end(server)
			if !poll(m[0].Ref().Ended) {
				t.Fatal("the end was not noticed")
			}
			again := fetch(t, p, 2)
			ack(t, m[1:]...) // of the session that ended
			if got := texts(again); !slices.Equal(got, []string{"message 00001", "message 00002"}) {
				t.Errorf("delivered again: %q", got)
			}
			if n := server.left(); n != 2 {
				t.Errorf("%d messages left after a stale settle", n)
			}
			ack(t, again...)
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			if n := server.left(); n != 0 || server.most() != 1 {
				t.Errorf("%d messages left, up to %d consumers at a time", n, server.most())
			}
			if s := p.Stats(); s.Stale != 2 || s.Sessions != 2 {
				t.Errorf("%+v", s)
			}
			if !strings.Contains(log.String(), tt.want) {
				t.Errorf("logged without %q:\n%s", tt.want, &log)
			}
		})
	}
}

// RabbitMQ 4 takes messages away that came back too often, unless the queue says
// otherwise: that is told once, however often the producer connects.
func TestAQueueThatDropsMessagesIsWarnedOfOnce(t *testing.T) {
	for name, tt := range map[string]struct {
		arguments rabbitmq.Table
		warnings  int
	}{
		"a limit by default": {nil, 1},
		"none":               {rabbitmq.Table{"x-delivery-limit": -1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			server := newPeer(t, payloads(2)...)
			var log logBuffer
			p := connect(t, rabbitmq.Config{
				URL: server.url(), Queue: "orders", Declare: &rabbitmq.QueueDeclare{Durable: true, Type: rabbitmq.Quorum, Arguments: tt.arguments},
				Logger: slog.New(slog.NewTextHandler(&log, nil)),
			}, 10)
			fetch(t, p, 2)
			server.cut()
			ack(t, fetch(t, p, 2)...) // of the second session
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			if n := strings.Count(log.String(), "the broker drops messages"); n != tt.warnings || p.Stats().Sessions != 2 {
				t.Errorf("%d warnings in %d sessions, want %d:\n%s", n, p.Stats().Sessions, tt.warnings, &log)
			}
		})
	}
}

// RabbitMQ 4.3 counts a reject, and a consumer that is lost, towards the delivery
// limit, and a nack not. What was given back is counted as acquired, and is neither
// an attempt nor a suspect; what failed is rejected, as one that counts.
func TestWhatIsGivenBackIsNoAttempt(t *testing.T) {
	server := newPeer(t, payloads(2)...)
	p := connect(t, rabbitmq.Config{URL: server.url(), Queue: "orders"}, 10)
	count := func(m *broadway.Message) int64 { return m.Metadata.(*rabbitmq.Metadata).DeliveryCount }
	for n := range int64(8) { // more than the attempts of any policy
		m := fetch(t, p, 2)
		if count(m[0]) != n || m[0].Attempt != 1 || m[0].Redelivered != (n > 0) {
			t.Errorf("delivery %d: count %d, attempt %d, redelivered %v", n+1, count(m[0]), m[0].Attempt, m[0].Redelivered)
		}
		release(t, m...)
	}
	if err := p.Close(); err != nil { // the third life begins without an excuse
		t.Fatal(err)
	}
	if got := server.log(); !slices.Equal(got[:3], []string{"consume orders 10", "nack message 00000", "nack message 00001"}) || slices.ContainsFunc(got, func(s string) bool {
		return strings.HasPrefix(s, "reject")
	}) {
		t.Errorf("sent %q", got)
	}
	p = connect(t, rabbitmq.Config{URL: server.url(), Queue: "orders"}, 10)
	m := fetch(t, p, 2) // both: none is alone
	if m[0].Attempt != 1 || count(m[0]) < 8 {
		t.Errorf("attempt %d, count %d", m[0].Attempt, count(m[0]))
	}
	ack(t, m...)
}

// Each process dies while it has the first message. What counts is x-delivery-count
// alone: once it is 5 the message has its attempts, and nothing was beside it from
// the third on.
func TestDeathsAreAttempts(t *testing.T) {
	server := newPeer(t, payloads(3)...)
	for n := range 6 {
		p := connect(t, rabbitmq.Config{URL: server.url(), Queue: "orders"}, 10)
		m := fetch(t, p, 1)[0]
		want := 1
		if n > 4 {
			want = 1 + n
		}
		if m.Attempt != want || string(m.Payload) != "message 00000" {
			t.Errorf("life %d: attempt %d of %q, want %d", n+1, m.Attempt, m.Payload, want)
		}
		if n == 5 {
			ack(t, m)
			rest := fetch(t, p, 1) // alone, too: it came back twice
			ack(t, rest...)
			ack(t, fetch(t, p, 1)...)
			if got := rest[0].Metadata.(*rabbitmq.Metadata).DeliveryCount; got > 4 || rest[0].Attempt != 1 {
				t.Errorf("the neighbour came back %d times, and has attempt %d", got, rest[0].Attempt)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			continue
		}
		// As when the process dies: nothing more reaches the server, which notices.
		server.ignore(true)
		server.cut()
		if err := p.Close(); err != nil {
			t.Logf("close: %v", err)
		}
		server.ignore(false)
	}
	if n := server.left(); n != 0 {
		t.Errorf("%d messages left", n)
	}
}

// wantLog waits until clients did exactly want.
func wantLog(t *testing.T, server *peer, want ...string) {
	t.Helper()
	if !poll(func() bool { return len(server.log()) >= len(want) }) || !slices.Equal(server.log(), want) {
		t.Errorf("the server saw %q, want %q", server.log(), want)
	}
}

// nothing says that p hands out nothing now: whatever is delivered is here, as a
// Fetch that does not wait finds it.
func nothing(t *testing.T, p *rabbitmq.Producer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if m, err := p.Fetch(ctx, broadway.Demand{Messages: 10, Bytes: plenty}); err == nil {
		t.Errorf("fetched %q", texts(m))
	}
}

// Suspects come to a consumer that has others. Those go on; the first suspect is
// tried when nothing else is unsettled, and then one after the other, until there is
// a message that never came back: that is not kept waiting for any other.
func TestSuspectsAreTriedAlone(t *testing.T) {
	server := newPeer(t, []byte("a"))
	p := connect(t, rabbitmq.Config{URL: server.url(), Queue: "orders"}, 10)
	a := fetch(t, p, 1)
	server.add("2 s1", "2 s2", "0 b")
	b := fetch(t, p, 1)
	if texts(b)[0] != "b" {
		t.Fatalf("fetched %q", texts(b))
	}
	wantLog(t, server, "consume orders 10", "cancel", "nack s2")
	nothing(t, p)
	ack(t, a...)
	nothing(t, p)
	ack(t, b...)
	s1 := fetch(t, p, 1)
	wantLog(t, server, "consume orders 10", "cancel", "nack s2", "ack a", "ack b")
	// A pause meanwhile, and its end, bring no other message beside it.
	if err := p.Pause(within(t)); err != nil {
		t.Error(err)
	}
	if err := p.Resume(within(t)); err != nil {
		t.Error(err)
	}
	nothing(t, p)
	ack(t, s1...)
	s2 := fetch(t, p, 1)
	server.add("1 s3", "0 c", "0 d") // once is enough among suspects
	nothing(t, p)
	ack(t, s2...)
	s3 := fetch(t, p, 1)
	if got := texts(slices.Concat(s1, s2, s3)); !slices.Equal(got, []string{"s1", "s2", "s3"}) || s1[0].Attempt != 1 {
		t.Errorf("tried %q", got)
	}
	nothing(t, p)
	ack(t, s3...)
	if got := texts(fetch(t, p, 2)); !slices.Equal(got, []string{"c", "d"}) {
		t.Errorf("then came %q", got)
	}
	wantLog(t, server, "consume orders 10", "cancel", "nack s2", "ack a", "ack b", "ack s1", "consume orders 1",
		"ack s2", "ack s3", "cancel", "consume orders 10")
	if s := p.Stats(); s.Sessions != 1 || s.Returned != 1 {
		t.Errorf("%+v", s)
	}
}

// Suspects wait for all else to be settled, so open batches are closed for them.
func TestSuspectsCloseOpenBatches(t *testing.T) {
	server := newPeer(t, payloads(5)...)
	out := newSink()
	stop := runPipeline(t, broadway.Config{
		Producers: []broadway.Producer{rabbitmq.NewProducer(quick(t, rabbitmq.Config{URL: server.url(), Queue: "orders", Prefetch: 50}))},
		Processor: broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error { return nil }},
		Batchers:  []broadway.BatcherConfig{{Reporter: out.report, Size: 20, Timeout: time.Hour}},
		Failure:   broadway.FailurePolicy{MaxAttempts: 3, Action: broadway.ActionRequeue},
	})
	if !poll(func() bool { return slices.Equal(server.log(), []string{"consume orders 50"}) }) {
		t.Fatal("nothing is consumed")
	}
	server.add("2 s1", "3 s2")
	if !out.await(7) {
		t.Errorf("%d of 7 messages were reported; the server saw %q", len(out.seen), server.log())
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if n := server.left(); n != 0 {
		t.Errorf("%d messages left", n)
	}
}

// What comes while the consumer is cancelled over a suspect, and is more than the
// process may hold, is not kept but handed back, and comes whole.
func TestSuspectsOverTheBoundInBytes(t *testing.T) {
	server := newPeer(t, []byte("a"))
	p := rabbitmq.NewProducer(quick(t, rabbitmq.Config{URL: server.url(), Queue: "orders", LagInterval: -1}))
	p.Describe(broadway.Limits{MaxUnsettled: 10, MaxUnsettledBytes: 1000, Share: 10})
	t.Cleanup(func() { _ = p.Close() })
	if err := p.Connect(within(t)); err != nil {
		t.Fatal(err)
	}
	a := fetch(t, p, 1)
	large := strings.Repeat("x", 5000)
	server.add("2 "+large+"1", "2 "+large+"2", "2 "+large+"3")
	if !poll(func() bool { bytes, _ := p.Held(); return bytes >= 5000 }) {
		t.Fatal("nothing came")
	}
	ack(t, a...)
	for i := range 3 {
		m := fetch(t, p, 1)
		if got := string(m[0].Payload); got != large+string(rune('1'+i)) {
			t.Errorf("%d bytes came, %q last", len(got), got[max(len(got)-1, 0):])
		}
		ack(t, m...)
	}
	if !poll(func() bool { bytes, _ := p.Held(); return bytes == 0 && server.left() == 0 }) {
		bytes, _ := p.Held()
		t.Errorf("%d bytes are held, %d messages left", bytes, server.left())
	}
}

// A server that sends nothing any more, not even the end of the connection, is given
// up: by its heartbeats when nothing is asked of it, or by the time for an answer.
func TestHalfOpenConnections(t *testing.T) {
	for name, ask := range map[string]func(*testing.T, *rabbitmq.Producer){
		"nothing is asked": func(*testing.T, *rabbitmq.Producer) {},
		"it is asked to cancel": func(t *testing.T, p *rabbitmq.Producer) {
			if err := p.Pause(within(t)); err == nil {
				t.Error("the consumer was cancelled")
			}
			if err := p.Resume(within(t)); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newPeer(t, payloads(1)...)
			p := connect(t, rabbitmq.Config{URL: server.url(), Queue: "orders", Heartbeat: time.Second, CloseTimeout: 200 * time.Millisecond}, 10)
			m := fetch(t, p, 1)[0]
			server.ignore(true)
			ask(t, p)
			if !poll(m.Ref().Ended) {
				t.Fatal("the silence was not noticed")
			}
			if !poll(func() bool { return p.Health() != nil }) {
				t.Error("healthy without an answer")
			}
			server.cut()
			server.ignore(false)
			ack(t, fetch(t, p, 1)...)
			if server.most() > 1 {
				t.Errorf("up to %d consumers at a time", server.most())
			}
		})
	}
}
