package kafka_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// mortalVariable makes the test binary a process that consumes, and kills itself
// when it handles what is poison: "brokers topic group client attempts".
const mortalVariable = "KAFKA_TEST_MORTAL"

const poison = "poison"

// runMortal is such a process. It says on its output what it handles, and stops in
// good order when its input ends.
func runMortal(args string) int {
	var addrs string
	var attempts int
	cfg := kafka.Config{
		SessionTimeout: 6 * time.Second, RebalanceTimeout: 10 * time.Second, HeartbeatInterval: 100 * time.Millisecond,
		CommitInterval: 50 * time.Millisecond, MaxWait: 50 * time.Millisecond, Topics: []string{""},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if _, err := fmt.Sscan(args, &addrs, &cfg.Topics[0], &cfg.Group, &cfg.ClientID, &attempts); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	cfg.Brokers = strings.Split(addrs, ",")
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	pipeline, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{kafka.NewProducer(cfg)},
		Processor: broadway.ProcessorConfig{Concurrency: 4, MaxDemand: 4, Handler: func(_ context.Context, m *broadway.Message) error {
			say("handle", m)
			if strings.HasPrefix(string(m.Payload), poison) {
				if p, err := os.FindProcess(os.Getpid()); err == nil {
					_ = p.Kill()
				}
				select {}
			}
			return nil
		}},
		Batchers: []broadway.BatcherConfig{{Size: 8, Reporter: func(_ context.Context, b *broadway.Batch) error {
			for _, m := range b.Messages {
				say("done", m)
			}
			return nil
		}}},
		Failure: broadway.FailurePolicy{MaxAttempts: attempts, Action: broadway.ActionDeadLetter, DeadLetter: said{}},
		Logger:  cfg.Logger,
	})
	if err == nil {
		err = pipeline.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// say tells the parent.
func say(verb string, m *broadway.Message) {
	_, _ = fmt.Println(verb, m.Attempt, string(m.Payload))
}

// said confirms dead letters, and tells the parent.
type said struct{}

func (said) DeadLetter(_ context.Context, messages []*broadway.Message) error {
	for _, m := range messages {
		say("dead", m)
	}
	return nil
}

// hospital keeps processes alive that consume one topic, by starting another for
// each that died.
type hospital struct {
	t      *testing.T
	broker *brokers.KafkaBroker
	topic  string
	group  string
	most   int // attempts

	mu      sync.Mutex // protects following fields
	lives   int
	deaths  int
	handled map[string][]string // attempts at a poison, as they were said
	done    map[string]bool
	dead    []string
	stdin   []io.Closer
	closed  bool
	running sync.WaitGroup
}

func newHospital(t *testing.T, b *brokers.KafkaBroker, topic string, processes, attempts int) *hospital {
	h := &hospital{t: t, broker: b, topic: topic, group: b.Group(t), most: attempts, handled: map[string][]string{}, done: map[string]bool{}}
	for range processes {
		h.running.Go(func() {
			for h.life() {
			}
		})
	}
	t.Cleanup(h.close)
	return h
}

// life is that of one process. It says whether another is to follow.
func (h *hospital) life() bool {
	h.mu.Lock()
	h.lives++
	client := fmt.Sprint("mortal-", h.lives)
	h.mu.Unlock()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprint(mortalVariable, "=", strings.Join(h.broker.Addrs(), ","), " ", h.topic, " ", h.group, " ", client, " ", h.most))
	var stderr strings.Builder
	cmd.Stderr = &stderr
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
		// As the group would after its session time-out.
		if err := evictClient(context.Background(), h.broker.Addrs(), h.group, client); err != nil {
			h.t.Error(err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.deaths++
		return h.deaths < 50
	}
	if err != nil || h.t.Failed() {
		h.t.Errorf("%v:\n%s", err, stderr.String())
	}
	return false
}

func (h *hospital) note(line string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	verb, rest, _ := strings.Cut(line, " ")
	attempt, text, _ := strings.Cut(rest, " ")
	switch {
	case verb == "done":
		h.done[text] = true
	case verb == "dead":
		h.dead = append(h.dead, text+" after "+attempt)
	case strings.HasPrefix(text, poison):
		h.handled[text] = append(h.handled[text], attempt)
	}
}

// has says whether so many messages were handled to their end, and as many given
// up.
func (h *hospital) has(done, dead int) func() error {
	return func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.done) < done || len(h.dead) < dead {
			return fmt.Errorf("%d done, given up: %v; %d died of %v", len(h.done), h.dead, h.deaths, h.handled)
		}
		return nil
	}
}

// close ends all processes in good order.
func (h *hospital) close() {
	h.mu.Lock()
	h.closed = true
	for _, c := range h.stdin {
		_ = c.Close() // it may have gone
	}
	h.mu.Unlock()
	h.running.Wait()
}

// A message that kills each process that handles it ends in the dead letters, once,
// after its attempts, whichever process gets it. Those beside it do not: neither in
// its partition, nor in others.
func TestPoisonThatKillsItsProcessIsGivenUp(t *testing.T) {
	for name, c := range map[string]struct {
		processes, partitions, attempts int
		poisons                         []int
	}{
		"one process":        {1, 1, 3, []int{40}},
		"the first message":  {1, 1, 1, []int{0}},
		"two processes":      {2, 4, 2, []int{81}},
		"three poisons":      {1, 3, 2, []int{20, 23, 120}},
		"beside one another": {1, 1, 1, []int{40, 41}},
	} {
		t.Run(name, func(t *testing.T) {
			on(t, func(t *testing.T, b *brokers.KafkaBroker) {
				const n = 200
				topic := b.Topic(t, c.partitions)
				records := numbered("m", n, n, c.partitions)
				want := []string{}
				for _, i := range c.poisons {
					records[i].Value = fmt.Appendf(nil, "%s-%d", poison, i)
					want = append(want, fmt.Sprintf("%s after %d", records[i].Value, c.attempts))
				}
				b.Produce(t, topic, records...)
				h := newHospital(t, b, topic, c.processes, c.attempts)
				eventually(t, "all are handled or given up", h.has(n-len(want), len(want)))
				eventually(t, "all commits", committedToEnd(t, b, h.group, topic))
				h.close()
				slices.Sort(h.dead)
				slices.Sort(want)
				if !slices.Equal(h.dead, want) {
					t.Errorf("given up: %v, want %v", h.dead, want)
				}
				counted := []string{}
				for i := range c.attempts {
					counted = append(counted, fmt.Sprint(i+1))
				}
				for text, attempts := range h.handled {
					uncounted := len(attempts) - c.attempts
					if uncounted < 0 || uncounted > 2 || !slices.Equal(attempts[uncounted:], counted) {
						t.Errorf("%s was handled as attempts %v, want %v at the end", text, attempts, counted)
					}
				}
				t.Logf("%d died of %v", h.deaths, h.handled)
			})
		})
	}
}
