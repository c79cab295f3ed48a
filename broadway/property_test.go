package broadway_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// world is a random pipeline, its sources, and what became of every message.
type world struct {
	cfg     broadway.Config
	queues  []*memory.Queue
	total   int
	keys    int
	ordered bool

	mu       sync.Mutex // protects following fields
	settled  map[string]int
	reported map[string]int
	last     map[string]int // by stage and key: the number handled last
	running  map[string]int // by stage and payload: handlers that have it
	faults   []string
	stuck    bool          // some handlers and reporters outlive their time-outs
	outages  time.Duration // so long after the start the world is away, and again
	start    time.Time
	rewinds  bool                                   // sources take nothing back singly
	pool     *broadway.MessagePool[memory.Metadata] // of the messages, or nil
	timeout  time.Duration                          // of the sources, for acknowledging
	ahead    int                                    // the prefetch of the first source, if there are others
	groups   int                                    // batch keys, 0 for none
	flush    int                                    // every so manyth message closes its batch, 0 for none
	line     map[string][]int
	done     map[int]bool      // reported, given up, or given back
	passed   map[int][]passing // by number: faults, unless it was on its way back by then
}

// passing is that a message was overtaken in the reporter.
type passing struct {
	at    time.Time
	fault string
}

// inLine is what n is in order with, in the processor and in the reporter.
func (w *world) inLine(n int, m *broadway.Message) string {
	return fmt.Sprint(n%w.keys, m.ID()[:7], m.Metadata.(*memory.Metadata).Partition)
}

// overtakes checks that nothing in line before those of a batch is still to be tried
// again. Whoever hangs makes others fail for good, which is not known here.
func (w *world) overtakes(b *broadway.Batch) {
	if !w.ordered || w.stuck {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	with := map[int]bool{}
	for _, m := range b.Messages {
		n := number(m)
		for _, before := range w.line[w.inLine(n, m)] {
			if before < n && !w.done[before] && !with[before] {
				w.passed[before] = append(w.passed[before], passing{time.Now(), fmt.Sprintf("%d is reported before %d", n, before)})
			}
		}
		with[n] = true
	}
}

// with says that a handler of stage has m until the returned function is called:
// nobody else may have it then.
func (w *world) with(stage string, m *broadway.Message) func() {
	key := stage + string(m.Payload)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running[key]++; w.running[key] > 1 {
		w.faults = append(w.faults, fmt.Sprintf("%s: %s is tried again while its handler runs", stage, m.Payload))
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.running[key]--
	}
}

// away says that there is an outage: half of the time, while they last.
func (w *world) away() bool {
	since := time.Since(w.start)
	return w.outages > 0 && since < 10*w.outages && since/w.outages%2 == 1
}

// hang outlives every time-out, for a few of the numbers.
func (w *world) hang(n, attempt int) {
	if w.stuck && n%23 == 0 && attempt == 1 {
		time.Sleep(time.Second)
	}
}

func (w *world) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// drawWorld draws a topology, demands, speeds and failures.
func drawWorld(t *rapid.T) *world {
	w := &world{
		settled: map[string]int{}, reported: map[string]int{}, last: map[string]int{}, running: map[string]int{},
		line: map[string][]int{}, done: map[int]bool{}, passed: map[int][]passing{},
		total: rapid.IntRange(0, 400).Draw(t, "messages"),
		keys:  rapid.IntRange(1, 20).Draw(t, "keys"),
	}
	w.ordered = rapid.Bool().Draw(t, "ordered")
	sources := rapid.IntRange(1, 3).Draw(t, "sources")
	for i := range sources {
		w.queues = append(w.queues, memory.NewQueue(memory.QueueConfig{
			Name:       fmt.Sprint("source", i),
			Partitions: rapid.IntRange(1, 4).Draw(t, "partitions"),
			Capacity:   1000,
			Settled:    w.settle,
		}))
	}
	w.cfg.Logger = slog.New(slog.DiscardHandler)
	w.cfg.Observer = &boundsWatch{w: w}
	w.drawStages(t)
	w.drawFaults(t)
	return w
}

// drawFaults draws whether handlers hang, how many of them are replaced, and how
// long the outages are.
func (w *world) drawFaults(t *rapid.T) {
	w.rewinds = rapid.Bool().Draw(t, "rewinds")
	if rapid.Bool().Draw(t, "memory is used again") {
		w.pool = new(broadway.MessagePool[memory.Metadata])
	}
	w.timeout = rapid.SampledFrom([]time.Duration{0, 0, time.Second}).Draw(t, "ack time-out")
	w.cfg.Failure.Backoff.Initial = rapid.SampledFrom([]time.Duration{time.Millisecond, 100 * time.Millisecond}).Draw(t, "backoff")
	w.outages = rapid.SampledFrom([]time.Duration{0, 0, 5 * time.Millisecond, 300 * time.Millisecond}).Draw(t, "outages")
	if w.stuck = rapid.Bool().Draw(t, "stuck"); w.stuck || w.outages > 0 {
		w.timeout *= 20 // what fails after half of it begins with its first attempt again
	}
	if !w.stuck {
		return
	}
	most := rapid.SampledFrom([]int{-1, 0, 1, 3}).Draw(t, "max stuck")
	w.cfg.Processor.Timeout, w.cfg.Processor.MaxStuck = 40*time.Millisecond, most
	for i := range w.cfg.Batchers {
		w.cfg.Batchers[i].ReportTimeout, w.cfg.Batchers[i].MaxStuck = 40*time.Millisecond, most
	}
}

func (w *world) drawStages(t *rapid.T) {
	maxDemand := rapid.IntRange(1, 20).Draw(t, "max demand")
	w.cfg.Processor = broadway.ProcessorConfig{
		Concurrency: rapid.IntRange(1, 5).Draw(t, "workers"),
		MaxDemand:   maxDemand,
		MinDemand:   rapid.IntRange(0, maxDemand-1).Draw(t, "min demand"),
		Handler:     w.handle,
	}
	if w.ordered {
		w.cfg.Processor.PartitionBy = func(m *broadway.Message) uint64 { return uint64(number(m) % w.keys) }
	}
	w.groups = rapid.SampledFrom([]int{0, 0, 1, 3}).Draw(t, "batch keys")
	w.flush = rapid.SampledFrom([]int{0, 0, 3, 40}).Draw(t, "flush every")
	largest := 1
	for i := range rapid.IntRange(0, 3).Draw(t, "batchers") {
		b := broadway.BatcherConfig{
			Name:        fmt.Sprint("b", i),
			Size:        rapid.IntRange(1, 30).Draw(t, "batch size"),
			Concurrency: rapid.IntRange(1, 3).Draw(t, "reporters"),
			Timeout:     rapid.SampledFrom([]time.Duration{-1, time.Millisecond, time.Second}).Draw(t, "batch timeout"),
			Bytes:       rapid.SampledFrom([]int64{0, 0, 20}).Draw(t, "batch bytes"),
			Reporter:    w.report,
		}
		largest = max(largest, b.Size)
		w.cfg.Batchers = append(w.cfg.Batchers, b)
	}
	w.ahead = rapid.SampledFrom([]int{0, 0, 1, 5}).Draw(t, "prefetch")
	w.cfg.MaxUnsettled = max(rapid.IntRange(1, 200).Draw(t, "bound"), 2*largest, w.ahead+len(w.queues))
	w.cfg.MaxUnsettledBytes = rapid.Int64Range(1, 40_000).Draw(t, "bound in bytes")
	w.cfg.Failure = broadway.FailurePolicy{MaxAttempts: 2, Backoff: broadway.Backoff{Initial: time.Millisecond}}
}

// fill puts the messages into the queues, as the bubble's own.
func (w *world) fill(t *testing.T) {
	for n := range w.total {
		q := w.queues[n%len(w.queues)]
		if err := q.Push(t.Context(), fmt.Appendf(nil, "m%d", n)); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range w.queues {
		q.CloseInput()
	}
}

// open opens a producer of each queue.
func (w *world) open() {
	w.cfg.Producers = nil
	for i, q := range w.queues {
		w.cfg.Producers = append(w.cfg.Producers, w.source(i, memory.New(memory.Config{Queue: q})))
	}
}

// source is the i-th source of the world.
func (w *world) source(i int, p *memory.Producer) like {
	l := like{Producer: p, rewinds: w.rewinds, timeout: w.timeout, pool: w.pool}
	if i == 0 && len(w.queues) > 1 {
		l.ahead = w.ahead
	}
	return l
}

// handle fails every eleventh message once and every seventeenth for ever, and
// takes its time over every fifth.
func (w *world) handle(ctx context.Context, m *broadway.Message) error {
	defer w.with("processor", m)()
	n := number(m)
	if w.away() && n%2 == 0 {
		return broadway.Unavailable(errors.New("away"))
	}
	w.hang(n, m.Attempt)
	if n%5 == 0 {
		time.Sleep(time.Duration(n%7) * time.Millisecond)
	}
	w.order("processor", m)
	w.mu.Lock()
	if m.Attempt == 1 {
		line := w.inLine(n, m)
		w.line[line] = append(w.line[line], n)
	} else if n%17 == 0 {
		w.done[n] = true
	}
	w.mu.Unlock()
	if len(w.cfg.Batchers) > 0 {
		m.Batcher = fmt.Sprint("b", n%w.keys%len(w.cfg.Batchers))
		if w.groups > 0 {
			m.BatchKey = fmt.Sprint(n % w.keys % w.groups)
		}
		if w.flush > 0 && n%w.flush == 0 {
			m.BatchMode = broadway.Flush
		}
	}
	return w.fate(n, m.Attempt)
}

func (w *world) fate(n, attempt int) error {
	switch {
	case n%17 == 0:
		return errors.New("always")
	case n%11 == 0 && attempt == 1:
		return errors.New("once")
	case n%19 == 0 && attempt == 1:
		panic("once")
	}
	return nil
}

func (w *world) report(ctx context.Context, b *broadway.Batch) error {
	failures := new(broadway.BatchError)
	for _, m := range b.Messages {
		defer w.with("reporter", m)()
	}
	if w.away() && number(b.Messages[0])%2 == 1 {
		return broadway.Unavailable(errors.New("away"))
	}
	w.hang(number(b.Messages[0])+11, b.Messages[0].Attempt)
	w.overtakes(b)
	for _, m := range b.Messages {
		if b.Messages[0].BatchKey != m.BatchKey || m.Batcher != b.Batcher {
			w.fault("batch of %s/%s holds a message of %s/%s", b.Batcher, b.Key, m.Batcher, m.BatchKey)
		}
		w.order("reporter", m)
		if n := number(m); n%13 == 0 && m.Attempt == 1 {
			failures.Fail(m, errors.New("once"))
			continue
		}
		w.mu.Lock()
		w.reported[string(m.Payload)]++
		w.done[number(m)] = true
		w.mu.Unlock()
	}
	time.Sleep(time.Duration(len(b.Messages)%3) * time.Millisecond)
	return failures.Err()
}

// order checks that first handlings of one key come in order: by source, since
// each source has an order of its own.
func (w *world) order(stage string, m *broadway.Message) {
	if !w.ordered || m.Attempt > 1 || m.Redelivered {
		return
	}
	n := number(m)
	meta := m.Metadata.(*memory.Metadata)
	key := fmt.Sprint(stage, n%w.keys, m.ID()[:7], meta.Partition)
	w.mu.Lock()
	defer w.mu.Unlock()
	if last, ok := w.last[key]; ok && n < last {
		w.faults = append(w.faults, fmt.Sprintf("%s: %d after %d", key, n, last))
	}
	w.last[key] = n
}

func (w *world) settle(o memory.Outcome, m *broadway.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := number(m)
	for _, by := range w.passed[n] {
		if o != memory.Released || w.timeout == 0 || time.Now().After(by.at) {
			w.faults = append(w.faults, by.fault)
		}
	}
	delete(w.passed, n)
	if o == memory.Released {
		w.done[n] = w.done[n] || w.timeout > 0 // it has lost its place
		return
	}
	w.settled[string(m.Payload)]++
}

// boundsWatch checks what it is told against the demand that was made.
type boundsWatch struct {
	w *world
}

func (b *boundsWatch) Fetched(e broadway.FetchEvent) {
	if e.Messages > e.Demand.Messages || e.Bytes > e.Demand.Bytes || e.Demand.Messages > b.w.cfg.MaxUnsettled {
		b.w.fault("fetch over the bounds: %+v", e)
	}
}
func (b *boundsWatch) Handled(broadway.HandleEvent)   {}
func (b *boundsWatch) Reported(broadway.ReportEvent)  {}
func (b *boundsWatch) Settled(e broadway.SettleEvent) {}

// check is what holds after every run to the end.
func (w *world) check(t *rapid.T, p *broadway.Pipeline) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.faults {
		t.Error(f)
	}
	if len(w.settled) != w.total {
		t.Errorf("%d of %d messages settled", len(w.settled), w.total)
	}
	for id, n := range w.settled {
		if n != 1 {
			t.Errorf("%s settled %d times", id, n)
		}
	}
	st := p.Stats()
	if st.HighestUnsettled > w.cfg.MaxUnsettled || st.HighestUnsettledBytes > max(w.cfg.MaxUnsettledBytes, 2*(broadway.MessageOverhead+1)*int64(len(w.queues))) {
		t.Errorf("bounds: %+v", st)
	}
	if st.Unsettled != 0 || st.UnsettledBytes != 0 || st.SettledTwice != 0 {
		t.Errorf("left unsettled: %+v", st)
	}
	for _, b := range st.Batchers {
		if b.Held != 0 || b.HighestHeld > w.cfg.MaxUnsettled {
			t.Errorf("batcher: %+v", b)
		}
	}
}

// TestAnyPipelineSettlesEveryMessageOnceWithinItsBounds is the one property that
// all others hang on. Without a timer on its batches a pipeline ends only by the
// progress rule.
func TestAnyPipelineSettlesEveryMessageOnceWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := drawWorld(rt)
		synctest.Test(t, func(t *testing.T) {
			w.fill(t)
			w.check(rt, w.runToTheEnd(rt, t))
		})
	})
}

// runToTheEnd runs the world's pipeline until its sources are done: within ten
// virtual minutes, or it made no progress.
func (w *world) runToTheEnd(rt *rapid.T, t *testing.T) *broadway.Pipeline {
	w.open()
	w.start = time.Now()
	p, err := broadway.New(w.cfg)
	if err != nil {
		rt.Fatal(err)
	}
	const long = 10 * time.Minute
	var stuck atomic.Pointer[broadway.Stats]
	look := time.AfterFunc(long, func() { st := p.Stats(); stuck.Store(&st) })
	defer look.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), long+time.Second)
	defer cancel()
	if err := p.Run(ctx); err != nil || ctx.Err() != nil {
		rt.Errorf("no progress: %v; after a long time: %+v", err, stuck.Load())
	}
	return p
}

// TestADrainAtAnyTimeLosesNothing stops a random pipeline at a random time and
// runs a second one on the same queues: together they settle everything, once.
func TestADrainAtAnyTimeLosesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := drawWorld(rt)
		after := time.Duration(rapid.IntRange(0, 50).Draw(rt, "stop after ms")) * time.Millisecond
		synctest.Test(t, func(t *testing.T) {
			w.fill(t)
			w.open()
			w.start = time.Now()
			first, err := broadway.New(w.cfg)
			if err != nil {
				rt.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			if err := first.Run(ctx); err != nil {
				rt.Error(err)
			}
			if st := first.Stats(); st.Unsettled != 0 {
				rt.Errorf("left unsettled: %+v", st)
			}
			w.check(rt, w.runToTheEnd(rt, t))
		})
	})
}

// TestOneExtraCreditIsFound injects a credit that nobody owes, in a process of
// its own: the ledger ends it.
func TestOneExtraCreditIsFound(t *testing.T) {
	if os.Getenv("BROADWAY_INJECT") != "" {
		var p *broadway.Pipeline
		n := 0
		p, err := broadway.New(broadway.Config{
			Producers: []broadway.Producer{memory.New(memory.Config{Payloads: payloads(100)})},
			Processor: broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error { return nil }},
			Batchers: []broadway.BatcherConfig{{Size: 10, Reporter: func(context.Context, *broadway.Batch) error {
				if n++; n == 3 {
					p.InjectCredit()
				}
				return nil
			}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		_ = p.Run(t.Context())
		return
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOneExtraCreditIsFound$")
	child.Env = append(os.Environ(), "BROADWAY_INJECT=1")
	out, err := child.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "stage: credit: ") {
		t.Fatalf("the extra credit went unnoticed: %v\n%s", err, out)
	}
}
