package rabbitmq_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// draining cancels the consumer and hands back what was never fetched,
// and nothing else: what was fetched can still be acknowledged.
func TestDrainHandsBackWhatWasNeverFetched(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	broker.Publish(t, queue, payloads(20)...)
	w := newWire(t, broker.URL())
	p := connect(t, rabbitmq.Config{URL: w.url, Queue: queue}, 20)
	m := fetch(t, p, 5)
	if err := p.Drain(within(t)); err != nil {
		t.Fatal(err)
	}
	if got := w.methods("cancel"); len(got) != 1 {
		t.Errorf("sent %q", got)
	}
	if !poll(func() bool { ready, unacked := broker.Depth(t, queue); return ready == 15 && unacked == 5 }) {
		ready, unacked := broker.Depth(t, queue)
		t.Errorf("%d ready and %d unacknowledged, want 15 and 5", ready, unacked)
	}
	ack(t, m...)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if ready, unacked := broker.Depth(t, queue); ready != 15 || unacked != 0 {
		t.Errorf("%d ready and %d unacknowledged, want 15 and 0", ready, unacked)
	}
	if s := p.Stats(); s.Stale+s.Refused != 0 {
		t.Errorf("%+v", s)
	}
	p = connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue}, 20)
	if got := texts(fetch(t, p, 15)); got[0] != "message 00005" || !slices.IsSorted(got) {
		t.Errorf("the next consumer got %q", got)
	}
}

func TestPauseAndResume(t *testing.T) {
	t.Run("Classic", func(t *testing.T) { pauseAndResume(t) })
	// RabbitMQ 3.10 closes the channel of a consumer that gets the tag of an earlier
	// one, which still has messages of a quorum queue.
	t.Run("Quorum", func(t *testing.T) { pauseAndResume(t, brokers.Quorum()) })
}

func pauseAndResume(t *testing.T, options ...brokers.QueueOption) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t, options...)
	ch := admin(t, broker)
	broker.Publish(t, queue, payloads(10)...)
	w := newWire(t, broker.URL())
	p := connect(t, rabbitmq.Config{URL: w.url, Queue: queue, Consumer: rabbitmq.Consumer{Tag: strings.Repeat("t", 255)}}, 10)
	m := fetch(t, p, 3)
	for range 2 { // the second changes nothing
		if err := p.Pause(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	// A quorum queue counts as a consumer who has messages, too.
	if n := consumers(ch, queue); len(options) == 0 && n != 0 || len(w.methods("cancel")) != 1 {
		t.Errorf("%d consumers while paused", n)
	}
	if !poll(func() bool { ready, unacked := broker.Depth(t, queue); return ready == 7 && unacked == 3 }) {
		t.Error("what was not fetched was not handed back, or what was fetched was")
	}
	if err := p.Health(); err != nil {
		t.Errorf("health while paused: %v", err)
	}
	short, cancel := context.WithCancel(t.Context())
	fetching := make(chan []*broadway.Message, 1)
	go func() {
		got, _ := p.Fetch(short, broadway.Demand{Messages: 1, Bytes: plenty})
		fetching <- got
	}()
	ack(t, m[:2]...) // on the connection that stays
	if !poll(func() bool { return slices.Equal(w.methods("ack"), []string{"ack <=2"}) }) {
		t.Errorf("on the wire: %q", w.settles())
	}
	cancel()
	if got := <-fetching; len(got) > 0 {
		t.Errorf("fetched %q while paused", texts(got))
	}
	if err := p.Resume(within(t)); err != nil {
		t.Fatal(err)
	}
	rest := fetch(t, p, 7)
	if !slices.Equal(texts(rest), []string{"message 00003", "message 00004", "message 00005", "message 00006", "message 00007", "message 00008", "message 00009"}) {
		t.Errorf("after resuming: %q", texts(rest))
	}
	if rest[0].Ref() != m[0].Ref() || w.connections() != 1 {
		t.Error("pausing ended the session")
	}
	ack(t, append(rest, m[2])...)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if !poll(func() bool { ready, unacked := broker.Depth(t, queue); return ready+unacked == 0 }) {
		t.Error("messages are left in the queue")
	}
}

// A connection that is lost while paused is replaced when resuming.
func TestConnectionLossWhilePaused(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	ch := admin(t, broker)
	broker.Publish(t, queue, payloads(2)...)
	w := newWire(t, broker.URL())
	p := connect(t, rabbitmq.Config{URL: w.url, Queue: queue}, 10)
	m := fetch(t, p, 1)
	if err := p.Pause(within(t)); err != nil {
		t.Fatal(err)
	}
	w.cut()
	if !poll(func() bool { return m[0].Ref().Ended() && p.Health() != nil }) {
		t.Fatal("the loss was not noticed")
	}
	if n := consumers(ch, queue); n != 0 {
		t.Errorf("%d consumers while paused", n)
	}
	if err := p.Resume(within(t)); err != nil {
		t.Fatal(err)
	}
	if got := texts(fetch(t, p, 2)); !slices.Equal(got, []string{"message 00000", "message 00001"}) {
		t.Errorf("after resuming: %q", got)
	}
}

// With a single active consumer, order holds over a hand-over: the next consumer
// starts only when this one has finished, and with the oldest message left. It
// is the end of the channel that hands over, not a cancel.
func TestSingleActiveConsumerHandsOverInOrder(t *testing.T) {
	for name, handOver := range map[string]func(*testing.T, *rabbitmq.Producer){
		"Close": func(t *testing.T, p *rabbitmq.Producer) {
			if err := p.Drain(within(t)); err != nil {
				t.Error(err)
			}
		},
		"Pause": func(t *testing.T, p *rabbitmq.Producer) {
			if err := p.Pause(within(t)); err != nil {
				t.Error(err)
			}
		},
	} {
		for _, options := range [][]brokers.QueueOption{nil, {brokers.Quorum()}} {
			kind := []string{"Classic", "Quorum"}[len(options)]
			t.Run(name+"/"+kind, func(t *testing.T) {
				broker := brokers.RabbitMQ(t)
				queue := broker.Queue(t, append(options, brokers.Argument("x-single-active-consumer", true))...)
				handOverInOrder(t, broker, queue, name == "Close", handOver)
			})
		}
	}
}

func handOverInOrder(t *testing.T, broker *brokers.RabbitMQBroker, queue string, closing bool, handOver func(*testing.T, *rabbitmq.Producer)) {
	const n = 30
	broker.Publish(t, queue, payloads(n)...)
	w := newWire(t, broker.URL())
	cfg := rabbitmq.Config{URL: w.url, Queue: queue, Declare: &rabbitmq.QueueDeclare{Passive: true, SingleActiveConsumer: true}}
	active := connect(t, cfg, 10)
	got := fetch(t, active, 5)
	cfg.URL = broker.URL()
	waiting := connect(t, cfg, 10)

	var mu sync.Mutex
	var order []string
	handled := func(messages ...*broadway.Message) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, texts(messages)...)
	}
	next := make(chan struct{})
	go func() { // no fetch: it ends the test, which only the test's goroutine may
		defer close(next)
		for left := n - 5; left > 0; {
			m, err := waiting.Fetch(t.Context(), broadway.Demand{Messages: left, Bytes: plenty})
			if err != nil {
				return
			}
			handled(m...)
			ack(t, m...)
			left -= len(m)
		}
	}()
	handOver(t, active)
	// The first consumer still works, slowly: the second must not start.
	for _, m := range got {
		timer := time.NewTimer(10 * time.Millisecond)
		<-timer.C
		handled(m)
		ack(t, m)
	}
	if closing {
		if err := active.Close(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-next:
	case <-time.After(patience):
		t.Fatal("the next consumer did not get everything")
	}
	mu.Lock()
	defer mu.Unlock()
	if len(order) != n || !slices.IsSorted(order) {
		t.Errorf("handled in the order %q", order)
	}
	if got := w.methods("cancel"); len(got) != 0 {
		t.Errorf("sent %q", got)
	}
}

// After its turn was handed over by Pause, a consumer gets another one.
func TestSingleActiveConsumerResumes(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t, brokers.Argument("x-single-active-consumer", true))
	broker.Publish(t, queue, payloads(4)...)
	cfg := rabbitmq.Config{URL: broker.URL(), Queue: queue, Declare: &rabbitmq.QueueDeclare{Passive: true, SingleActiveConsumer: true}}
	p := connect(t, cfg, 10)
	first := fetch(t, p, 2)
	if err := p.Pause(within(t)); err != nil {
		t.Fatal(err)
	}
	ack(t, first...)
	if !poll(func() bool { return first[0].Ref().Ended() }) {
		t.Fatal("the turn was not handed over")
	}
	if err := p.Health(); err != nil {
		t.Errorf("health while paused: %v", err)
	}
	if err := p.Resume(within(t)); err != nil {
		t.Fatal(err)
	}
	if got := texts(fetch(t, p, 2)); !slices.Equal(got, []string{"message 00002", "message 00003"}) {
		t.Errorf("after resuming: %q", got)
	}
	if s := p.Stats(); s.Stale != 0 || s.Sessions != 2 {
		t.Errorf("%+v", s)
	}
}
