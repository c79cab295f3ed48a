package rabbitmq_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// mortalVariable makes the test binary a process that consumes, and dies of what
// is poison: "url queue dead prefetch attempts".
const mortalVariable = "RABBITMQ_TEST_MORTAL"

const poison = "poison"

// runMortal is such a process. It says on its output what it handles, and stops in
// good order when its input ends.
func runMortal(args string) int {
	var url, queue, dead string
	var prefetch, attempts int
	if _, err := fmt.Sscan(args, &url, &queue, &dead, &prefetch, &attempts); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	publisher := rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: url, RoutingKey: dead, Logger: log})
	producer := rabbitmq.NewProducer(rabbitmq.Config{URL: url, Queue: queue, Prefetch: prefetch, Logger: log})
	pipeline, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{producer},
		Processor: broadway.ProcessorConfig{Concurrency: 4, MaxDemand: 4, Handler: func(_ context.Context, m *broadway.Message) error {
			text := string(m.Payload)
			_, _ = fmt.Println("handle", m.Attempt, text) // the parent reads it
			if strings.HasPrefix(text, poison) {
				if p, err := os.FindProcess(os.Getpid()); err == nil {
					_ = p.Kill()
				}
				select {}
			}
			time.Sleep(2 * time.Millisecond) // it is work: so the prefetch window is full of neighbours
			_, _ = fmt.Println("done", m.Attempt, text)
			return nil
		}},
		Batchers: []broadway.BatcherConfig{{Size: min(10, prefetch), Timeout: 50 * time.Millisecond, Reporter: func(context.Context, *broadway.Batch) error { return nil }}},
		Failure: broadway.FailurePolicy{
			MaxAttempts: attempts, Action: broadway.ActionDeadLetter,
			DeadLetter: &acknowledgers.DeadLetters{Publisher: publisher},
		},
		Logger: log,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := pipeline.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := publisher.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return 0
}

// hospital keeps processes alive that consume one queue, by starting another for
// each that died.
type hospital struct {
	t    *testing.T
	args string

	mu      sync.Mutex
	deaths  int
	handled map[string]int
	done    map[string]bool
	stdin   []io.Closer
	closed  bool
	running sync.WaitGroup
}

func newHospital(t *testing.T, processes int, args string) *hospital {
	h := &hospital{t: t, args: args, handled: map[string]int{}, done: map[string]bool{}}
	for range processes {
		h.running.Go(h.keepAlive)
	}
	return h
}

func (h *hospital) keepAlive() {
	for h.life() {
	}
}

// life is that of one process. It says whether another is to follow.
func (h *hospital) life() bool {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), mortalVariable+"="+h.args)
	stderr := new(logBuffer)
	cmd.Stderr = stderr
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	h.mu.Lock()
	closed := h.closed
	h.stdin = append(h.stdin, stdin)
	h.mu.Unlock()
	if closed {
		return false
	}
	if err3 := cmd.Start(); err1 != nil || err2 != nil || err3 != nil {
		h.t.Error(err1, err2, err3)
		return false
	}
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		h.note(lines.Text())
	}
	err := cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.deaths++
		return h.deaths < 50
	}
	if err != nil {
		h.t.Errorf("%v:\n%s", err, stderr)
	}
	return false
}

func (h *hospital) note(line string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	verb, rest, _ := strings.Cut(line, " ")
	_, text, _ := strings.Cut(rest, " ")
	if verb == "done" {
		h.done[text] = true
	} else {
		h.handled[text]++
	}
}

func (h *hospital) count() (done, deaths int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.done), h.deaths
}

// close ends all processes in good order.
func (h *hospital) close() {
	h.mu.Lock()
	h.closed = true
	for _, c := range h.stdin {
		_ = c.Close()
	}
	h.mu.Unlock()
	h.running.Wait()
}

// A message that kills each process that handles it ends in the dead letters, once,
// after its attempts; the messages that were beside it are handled, and none of
// them is given up. So it is when another process gets the poison each time.
func TestPoisonThatKillsProcessesIsGivenUp(t *testing.T) {
	for _, tt := range []struct {
		name                string
		processes, prefetch int
		poisons             int
		attempts, want      int
		limit               int
	}{
		{"OneProcess", 1, 40, 1, 5, 5, 0},
		{"TwoProcesses", 2, 40, 1, 6, 6, 0},
		{"FewAttempts", 1, 40, 1, 1, 5, 0}, // what came back four times may have been beside it
		{"TwoPoisons", 1, 40, 2, 5, 5, 0},
		{"TwoPoisonsTwoProcesses", 2, 40, 2, 6, 6, 0},
		{"OneAtATime", 1, 1, 1, 5, 5, 0},
		{"DeliveryLimit", 1, 40, 1, 5, 5, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			broker := brokers.RabbitMQ(t)
			options := []brokers.QueueOption{brokers.Quorum()}
			if tt.limit > 0 {
				options = append(options, brokers.Argument("x-delivery-limit", int32(tt.limit)))
			}
			queue, dead := broker.Queue(t, options...), broker.Queue(t)
			const n = 300
			all := payloads(n)
			for i := range tt.poisons {
				all[20+15*i] = []byte(poison + strconv.Itoa(i))
			}
			broker.Publish(t, queue, all...)
			h := newHospital(t, tt.processes, fmt.Sprintln(broker.URL(), queue, dead, tt.prefetch, tt.attempts))
			ended := poll(func() bool {
				done, _ := h.count()
				if done < n-tt.poisons || broker.Ready(t, dead) < tt.poisons {
					return false
				}
				ready, unacked := broker.Depth(t, queue)
				return ready+unacked == 0
			})
			h.close()
			done, deaths := h.count()
			t.Logf("%d processes died; handled %d, %d poison", deaths, done, h.handled[poison+"0"])
			if !ended || done != n-tt.poisons {
				t.Errorf("%d of %d neighbours were handled", done, n-tt.poisons)
			}
			letters := broker.Ready(t, dead)
			for _, m := range fetch(t, connect(t, rabbitmq.Config{URL: broker.URL(), Queue: dead}, 100), letters) {
				attempts, _ := m.Metadata.(*rabbitmq.Metadata).Headers[acknowledgers.HeaderAttempts].(string)
				if k, err := strconv.Atoi(attempts); !strings.HasPrefix(string(m.Payload), poison) || err != nil || k < tt.want || k > tt.want+1 {
					t.Errorf("given up: %q after %s attempts, want the poison after %d", m.Payload, attempts, tt.want)
				}
			}
			if letters != tt.poisons {
				t.Errorf("%d dead letters, want %d", letters, tt.poisons)
			}
			for _, text := range slices.Collect(func(yield func(string) bool) {
				for i := range tt.poisons {
					if !yield(poison + strconv.Itoa(i)) {
						return
					}
				}
			}) {
				// A process that has counted for one message does not for another: see history.charged.
				if got, most := h.handled[text], tt.want+tt.poisons-1; got > most {
					t.Errorf("%s was handled %d times, more than %d", text, got, most)
				}
			}
			if ready, unacked := broker.Depth(t, queue); ready+unacked != 0 {
				t.Errorf("%d ready and %d unacknowledged messages are left", ready, unacked)
			}
		})
	}
}

// Sessions that are lost again and again, while messages wait that nobody handles,
// raise the broker's counts. They are no attempts, neither in the process that lost
// them nor in the next, and they stop to rise, but for one message at a time.
func TestLostSessionsAreNoAttempts(t *testing.T) {
	const n, cuts = 20, 9
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t, brokers.Quorum())
	broker.Publish(t, queue, payloads(n)...)
	w := newWire(t, broker.URL())
	p := connect(t, rabbitmq.Config{URL: w.url, Queue: queue}, n)
	first := fetch(t, p, 1)[0]
	for range cuts {
		ref := first.Ref()
		w.cut()
		if !poll(ref.Ended) {
			t.Fatal("the loss was not noticed")
		}
		if first = fetch(t, p, 1)[0]; first.Attempt != 1 {
			t.Errorf("%q has attempt %d", first.Payload, first.Attempt)
		}
	}
	w.end() // with the next session, whose process is another
	if !poll(first.Ref().Ended) {
		t.Fatal("the end was not noticed")
	}
	p = connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue}, n)
	var highest int64
	for range n {
		m := fetch(t, p, 1)[0]
		if m.Attempt != 1 {
			t.Errorf("%q has attempt %d in the next process", m.Payload, m.Attempt)
		}
		highest = max(highest, m.Metadata.(*rabbitmq.Metadata).DeliveryCount)
		ack(t, m)
	}
	if highest < 3 || highest > 4 {
		t.Errorf("messages came back up to %d times, want 3 or 4", highest)
	}
}

// Whatever makes many messages come back often, a process counts it for one of them.
func TestOneMessageIsCharged(t *testing.T) {
	const n = 10
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t, brokers.Quorum())
	broker.Publish(t, queue, payloads(n)...)
	for range 6 {
		p := connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue, Consumer: rabbitmq.Consumer{Exclusive: true}}, n)
		release(t, fetch(t, p, n)...)
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	p := connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue}, n)
	var charged []string
	for range n {
		m := fetch(t, p, 1)[0]
		if m.Attempt > 1 {
			charged = append(charged, string(m.Payload))
		}
		ack(t, m)
	}
	if len(charged) != 1 {
		t.Errorf("attempts of other processes were counted for %q, want one", charged)
	}
}

// What a producer asks for by itself, before it consumes, may be larger than what
// it may hold, and is refused by a quorum queue with a single active consumer.
func TestTheFirstMessage(t *testing.T) {
	t.Run("LargerThanTheBound", func(t *testing.T) {
		broker := brokers.RabbitMQ(t)
		queue := broker.Queue(t, brokers.Quorum())
		broker.Publish(t, queue, make([]byte, 100_000), []byte("second"))
		p := rabbitmq.NewProducer(quick(t, rabbitmq.Config{URL: broker.URL(), Queue: queue, LagInterval: -1}))
		p.Describe(broadway.Limits{MaxUnsettled: 10, MaxUnsettledBytes: 1000, Share: 10})
		if err := p.Connect(within(t)); err != nil {
			t.Fatal(err)
		}
		ack(t, fetch(t, p, 1)...)
		ack(t, fetch(t, p, 1)...)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("SingleActiveConsumer", func(t *testing.T) {
		broker := brokers.RabbitMQ(t)
		queue := broker.Queue(t, brokers.Quorum(), brokers.Argument("x-single-active-consumer", true))
		broker.Publish(t, queue, payloads(3)...)
		p := connect(t, rabbitmq.Config{URL: broker.URL(), Queue: queue}, 10) // which does not say so
		if got := texts(fetch(t, p, 3)); !slices.IsSorted(got) {
			t.Errorf("got %q", got)
		}
		if s := p.Stats(); s.Sessions != 1 {
			t.Errorf("%+v", s)
		}
	})
}
