package broadway_test

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

// The behaviours in these files are those that Elixir's Broadway is tested for,
// by the ids of our list of them (B-001 … B-135), as far as they make sense in
// Go. Left out is what its processes and its macros bring along: child specs,
// links, restarts under a name, prepare_for_start, transformers, contexts,
// configure_ack, ack_immediately, rate limiting.

// pipe is a running pipeline on a source that is driven by hand.
type pipe struct {
	t        *testing.T
	source   *broadwaytest.Producer
	pipeline *broadway.Pipeline
	reports  *broadwaytest.ReportRecorder // of all batchers without a reporter
	observer *broadwaytest.ObserverRecorder

	stopping context.CancelFunc
	over     chan error
}

// behaviour runs f on cfg, in virtual time, and wants the pipeline to drain
// without an error. cfg's handler defaults to one that does nothing.
func behaviour(t *testing.T, cfg broadway.Config, f func(*testing.T, *pipe)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := startPipe(t, cfg)
		defer func() { _ = p.stop() }() // also when f gives up
		f(t, p)
		if err := p.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if n := p.source.Acks.Overlaps(); n > 0 {
			t.Errorf("%d calls of Ack for one reference overlapped", n)
		}
		s := p.pipeline.Stats()
		if s.State != broadway.StateStopped || s.Unsettled != 0 || s.UnsettledBytes != 0 {
			t.Errorf("at the end the pipeline is %v, with %d messages of %d bytes unsettled", s.State, s.Unsettled, s.UnsettledBytes)
		}
	})
}

func startPipe(t *testing.T, cfg broadway.Config) *pipe {
	t.Helper()
	p := &pipe{
		t: t, source: broadwaytest.NewProducer(broadway.Traits{}),
		reports: &broadwaytest.ReportRecorder{}, observer: &broadwaytest.ObserverRecorder{},
		over: make(chan error, 1),
	}
	cfg.Producers = append([]broadway.Producer{p.source}, cfg.Producers...)
	if cfg.Processor.Handler == nil {
		cfg.Processor.Handler = func(context.Context, *broadway.Message) error { return nil }
	}
	cfg.Batchers = slices.Clone(cfg.Batchers)
	for i := range cfg.Batchers {
		if cfg.Batchers[i].Reporter == nil {
			cfg.Batchers[i].Reporter = p.reports.Report
		}
	}
	cfg.Logger, cfg.Observer = slog.New(slog.DiscardHandler), p.observer
	var err error
	if p.pipeline, err = broadway.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p.stopping = cancel
	go func() { p.over <- p.pipeline.Run(ctx) }()
	return p
}

// stop drains, and gives what Run returned; it may be called again.
func (p *pipe) stop() error {
	p.stopping()
	err := <-p.over
	p.over <- err
	return err
}

// settled waits until n messages have left the pipeline, and gives them by
// payload. In case of several deliveries of a payload it is the last.
func (p *pipe) settled(n int) map[string]broadwaytest.Settled {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Hour)
	defer cancel()
	if err := p.source.Acks.Wait(ctx, n); err != nil {
		p.t.Fatalf("of %d messages these settled: %v", n, p.source.Acks.Calls())
	}
	all := make(map[string]broadwaytest.Settled)
	for _, s := range p.source.Acks.Settled() {
		all[s.Payload] = s
	}
	return all
}

// wantResults compares outcomes with "payload:result" words, in any order.
func wantResults(t *testing.T, got map[string]broadwaytest.Settled, want string) {
	t.Helper()
	var words []string
	for payload, s := range got {
		words = append(words, payload+":"+s.Result.String())
	}
	wanted := strings.Fields(want)
	slices.Sort(words)
	slices.Sort(wanted)
	if !slices.Equal(words, wanted) {
		t.Errorf("settled %v, want %v", words, wanted)
	}
}

// batches waits for n batches and gives them as "batcher[payloads] trigger".
func (p *pipe) batches(n int) []string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Hour)
	defer cancel()
	if err := p.reports.Wait(ctx, n); err != nil {
		p.t.Fatalf("of %d batches these came: %v", n, p.reports.Batches())
	}
	var all []string
	for _, b := range p.reports.Batches() {
		all = append(all, b.String()+" "+b.Trigger.String())
	}
	return all
}

// wantSet compares two lists whose order does not matter.
func wantSet(t *testing.T, got []string, want ...string) {
	t.Helper()
	got = slices.Clone(got)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), strings.Join(want, ", "))
	}
}

// numbers are the words from first to last.
func numbers(first, last int) []string {
	var words []string
	for n := first; n <= last; n++ {
		words = append(words, strconv.Itoa(n))
	}
	return words
}

func odd(m *broadway.Message) bool {
	n, err := strconv.Atoi(string(m.Payload))
	return err == nil && n%2 == 1
}

func parity(m *broadway.Message) string {
	if odd(m) {
		return "odd"
	}
	return "even"
}

// handledBy remembers what handlers got, in order.
type handledBy struct {
	mu   sync.Mutex // protects following field
	list []string
}

func (h *handledBy) add(m *broadway.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, string(m.Payload))
}

func (h *handledBy) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.list)
}
