package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/metrics"
)

// Exit codes of a worker.
const (
	ExitClean    = 0
	ExitFailed   = 1 // a pipeline ended by itself
	ExitConfig   = 2
	ExitDrain    = 3 // the drain took too long
	ExitAborted  = 4 // by a second SIGTERM
	ExitOrphaned = 5 // the parent is gone
)

// Command is a line on a worker's standard input.
type Command struct {
	// Leave stops member Member in good order, Abort stops it at once and settles nothing, Join starts it again; Pause and Resume its fetching.
	Leave, Abort, Join, Pause, Resume bool
	Member                            int
	// Down makes what lies behind the sink unavailable for all members, and Up brings it back.
	Down, Up bool
}

// Main runs "worker -config FILE" until SIGTERM or the end of its standard input, and returns the exit code.
func Main(args []string) int {
	flags := flag.NewFlagSet("worker", flag.ContinueOnError)
	file := flags.String("config", "", "the configuration, JSON")
	load := flags.String("pipelines", "", "a file of pipelines, to be loaded and not run")
	if err := flags.Parse(args); err != nil {
		return ExitConfig
	}
	if *load != "" {
		return loadPipelines(*load)
	}
	cfg, err := Read(*file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return ExitConfig
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	writer, err := ledger.Create(cfg.Dir, ledger.KindSink)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return ExitConfig
	}
	w := newWorker(cfg, writer)
	if cfg.Report != "" {
		if w.sink.reports, err = openReports(cfg.Report, w.sink.fail); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return ExitConfig
		}
	}
	code := w.run(os.Stdin, os.Stdout)
	if err := writer.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return ExitFailed
	}
	return code
}

// worker runs the members.
type worker struct {
	cfg     Config
	sink    *sink
	bounces bounces

	mu      sync.Mutex
	members []*member // nil where one has left
	stops   []context.CancelFunc
	again   []bool // joins again once it has left
	running sync.WaitGroup
	failed  chan struct{} // closed by the first member that ends by itself
	errs    []error
	past    map[string]int64 // counts of members that have left
}

func newWorker(cfg Config, writer *ledger.Writer) *worker {
	return &worker{
		cfg: cfg, failed: make(chan struct{}), past: map[string]int64{}, members: make([]*member, cfg.Members), stops: make([]context.CancelFunc, cfg.Members),
		again: make([]bool, cfg.Members),
		sink: &sink{
			cfg: cfg, writer: writer, fail: &failPoint{FailPoint: cfg.FailPoint}, faults: &faults{list: cfg.Faults, struck: map[string]int{}},
		},
	}
}

func (w *worker) run(commands io.Reader, reports io.Writer) int {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	w.bounce(ctx, w.cfg.Bounces)
	for i := range w.cfg.Members {
		if err := w.join(ctx, i); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return ExitConfig
		}
	}
	w.running.Go(func() { // so that all members may leave, and join again
		select {
		case <-ctx.Done():
		case <-w.failed:
		}
	})
	var serving sync.WaitGroup
	if w.cfg.Listen != "" {
		serving.Go(func() { w.serve(ctx) })
	}
	go w.obey(ctx, commands) // it ends with the process: reading cannot be interrupted
	over := make(chan struct{})
	telling := make(chan struct{})
	go func() { defer close(telling); w.tell(over, reports) }()
	ended := make(chan struct{})
	go func() { defer close(ended); w.running.Wait() }()
	code := w.await(stop, signals, ended)
	close(over)
	<-telling
	stop()
	serving.Wait()
	return code
}

// serve tells the health of the members that there are now. Nobody asks for /metrics.
func (w *worker) serve(ctx context.Context) {
	w.mu.Lock()
	var pipelines []metrics.Pipeline
	for _, m := range w.members {
		if m != nil {
			pipelines = append(pipelines, m.pipeline)
		}
	}
	w.mu.Unlock()
	if err := metrics.Serve(ctx, w.cfg.Listen, metrics.Handler(nil, pipelines...)); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
	}
}

// await waits for the end: of the pipelines by themselves, or by SIGTERM; a second one aborts.
func (w *worker) await(stop func(), signals <-chan os.Signal, ended <-chan struct{}) int {
	terms := 0
	for {
		select {
		case <-ended:
			return w.code(terms)
		case <-signals:
			terms++
			w.sink.fail.leaving.Store(true)
			w.sink.fail.reach(BeforeLeaving)
			stop()
			if terms > 1 {
				w.abort()
				return ExitAborted
			}
		}
	}
}

func (w *worker) code(terms int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := errors.Join(w.errs...)
	switch {
	case err == nil && terms > 0:
		return ExitClean
	case errors.Is(err, broadway.ErrDrainTimeout):
		fmt.Fprintln(os.Stderr, err)
		return ExitDrain
	}
	fmt.Fprintln(os.Stderr, "ended:", err)
	return ExitFailed
}

func (w *worker) abort() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.members {
		if m != nil {
			m.pipeline.Abort()
		}
	}
}

// join starts a member, or makes one that is still leaving join again as soon as it has left.
func (w *worker) join(parent context.Context, i int) error {
	m, err := newMember(w.cfg, fmt.Sprintf("%s-%d", w.cfg.Name, i), w.sink)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(parent)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.members[i] != nil {
		stop()
		w.again[i] = true
		return nil
	}
	w.members[i], w.stops[i] = m, stop
	w.running.Go(func() {
		err := m.run(ctx)
		stop()
		if !w.left(i, m, err) {
			return
		}
		if err := w.join(parent, i); err != nil {
			fmt.Fprintln(os.Stderr, "join again:", err)
		}
	})
	return nil
}

// left takes a member out, and says whether it is to join again.
func (w *worker) left(i int, m *member, err error) (again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members[i] = nil
	addCounts(w.past, pipelineCounts(m.pipeline.Stats()), m.counts())
	if err != nil && !errors.Is(err, broadway.ErrAborted) {
		if len(w.errs) == 0 {
			close(w.failed)
		}
		w.errs = append(w.errs, err)
	}
	again, w.again[i] = w.again[i], false
	return again
}

// obey does what the standard input says, and ends the process when the parent is gone.
func (w *worker) obey(ctx context.Context, commands io.Reader) {
	lines := bufio.NewScanner(commands)
	for lines.Scan() {
		var command Command
		if err := json.Unmarshal(lines.Bytes(), &command); err != nil {
			fmt.Fprintln(os.Stderr, "command:", err)
			continue
		}
		if err := w.command(ctx, command); err != nil {
			fmt.Fprintln(os.Stderr, "command:", err)
		}
	}
	os.Exit(ExitOrphaned)
}

func (w *worker) command(ctx context.Context, c Command) error {
	if c.Down || c.Up {
		w.sink.down.Store(c.Down)
		return nil
	}
	if c.Join {
		return w.join(ctx, c.Member)
	}
	w.mu.Lock()
	m, stop := w.members[c.Member], w.stops[c.Member]
	w.mu.Unlock()
	if m == nil {
		return fmt.Errorf("member %d has left", c.Member)
	}
	switch {
	case c.Leave:
		w.mu.Lock()
		w.again[c.Member] = false
		w.mu.Unlock()
		stop()
	case c.Abort:
		m.pipeline.Abort()
	case c.Pause:
		return m.pipeline.Pause(ctx)
	case c.Resume:
		return m.pipeline.Resume(ctx)
	}
	return nil
}

// tell writes a report every 20 ms, and a last one at the end.
func (w *worker) tell(over <-chan struct{}, reports io.Writer) {
	out := json.NewEncoder(reports)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for open := true; open; {
		select {
		case <-tick.C:
		case <-over:
			open = false
		}
		if err := out.Encode(w.report()); err != nil {
			return // the parent is gone
		}
	}
}

func addCounts(into map[string]int64, more ...map[string]int64) {
	for _, counts := range more {
		for name, n := range counts {
			into[name] += n
		}
	}
}

func (w *worker) report() rig.Report {
	w.mu.Lock()
	members := append([]*member(nil), w.members...)
	r := rig.Report{
		At: ledger.Now(), Ready: true, Handled: w.sink.handled.Load(), Goroutines: runtime.NumGoroutine(), Stats: maps.Clone(w.past),
	}
	w.mu.Unlock()
	for _, m := range members {
		if m == nil {
			continue
		}
		stats := m.pipeline.Stats()
		r.Ready = r.Ready && stats.State == broadway.StateRunning
		r.Unsettled += int64(stats.Unsettled)
		r.Waiting = stats.WaitingFor
		if stats.Err != nil {
			r.Err = stats.Err.Error()
		}
		addCounts(r.Stats, pipelineCounts(stats), m.counts())
	}
	r.Stats["bounces"], r.Stats["bounces_failed"] = w.bounces.done.Load(), w.bounces.failed.Load()
	r.Stats["slowest_stop_ms"], r.Stats["goroutines_left"] = w.bounces.slowest.Load(), w.bounces.left.Load()
	r.Stats["refused"] = w.sink.refused.Load()
	r.RSS, r.FDs = resources()
	return r
}

// resources are the resident memory in bytes and the open descriptors of this process, 0 where the system does not tell.
func resources() (rss int64, fds int) {
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			pages, _ := strconv.ParseInt(fields[1], 10, 64)
			rss = pages * int64(os.Getpagesize())
		}
	}
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		fds = len(open)
	}
	return rss, fds
}
