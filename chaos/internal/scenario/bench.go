package scenario

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// bench is one run: a load, workers, a journal of faults, and what the proxy saw. [kafkaBench] and [rabbitBench] add their source.
type bench struct {
	env      *Env
	name     string // of the run: of its topic or queue, and group
	dir      string
	dead     string // the topic or queue of dead letters
	proxy    *rig.Proxy
	recorder *rig.Recorder
	journal  *journal
	sent     load.Sent
	loose    bool // batches fail as a whole, so that first successes are not in the order of first handlings
	corpus   bool // messages do not name themselves
	deadly   bool // handlers reject messages on purpose: without that, a dead letter is a missed term

	mu      sync.Mutex
	workers []*rig.Process // all that ever ran
	started map[string]int
	events  func(rig.Conn, wire.Event)
}

func newBench(env *Env, proxy *rig.Proxy, newDecoder func(int64, func(wire.Event)) wire.Decoder) (*bench, error) {
	name, dir, err := env.newRun()
	if err != nil {
		return nil, err
	}
	b := &bench{env: env, name: name, dir: dir, dead: name + "-dead", proxy: proxy, started: map[string]int{}}
	if b.journal, err = newJournal(dir); err != nil {
		return nil, err
	}
	if b.recorder, err = rig.Record(dir, newDecoder, b.seen); err != nil {
		return nil, err
	}
	proxy.Tap(b.recorder.Open)
	return b, nil
}

// drain is where what is left of a kind is written down.
func (b *bench) drain(kind string) load.Drain {
	return load.Drain{Dir: b.dir, Kind: kind, Corpus: b.corpus}
}

// seen passes events at the proxy on to whoever watches.
func (b *bench) seen(conn rig.Conn, event wire.Event) {
	b.mu.Lock()
	watch := b.events
	b.mu.Unlock()
	if watch != nil {
		watch(conn, event)
	}
}

// watch makes f be told each event at the proxy, before it is carried on.
func (b *bench) watch(f func(rig.Conn, wire.Event)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = f
}

// start starts a worker under a name; a name that was used before gets a number, so that each life has files of its own.
func (b *bench) start(name string, cfg worker.Config, wrapper ...string) (*rig.Process, error) {
	b.mu.Lock()
	b.started[name]++
	life := fmt.Sprintf("%s.%d", name, b.started[name])
	b.mu.Unlock()
	cfg.Name = name
	p, err := rig.StartProcess(b.dir, life, cfg, nil, wrapper...)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.workers = append(b.workers, p)
	return p, nil
}

// startAll starts n workers w0, w1, … and waits until they are ready.
func (b *bench) startAll(ctx context.Context, n int, cfg worker.Config) ([]*rig.Process, error) {
	var started []*rig.Process
	for i := range n {
		p, err := b.start(fmt.Sprintf("w%d", i), cfg)
		if err != nil {
			return started, err
		}
		started = append(started, p)
	}
	for _, p := range started {
		if err := awaitReady(ctx, p); err != nil {
			return started, err
		}
	}
	return started, nil
}

func awaitReady(ctx context.Context, p *rig.Process) error {
	select {
	case <-p.Ready():
		return nil
	case <-p.Done():
		return fmt.Errorf("worker %s ended with code %d before it was ready: see its log", p.Name, p.ExitCode())
	case <-ctx.Done():
		return fmt.Errorf("worker %s is not ready: %w", p.Name, context.Cause(ctx))
	}
}

// handled is how many successes were written by all workers so far.
func (b *bench) handled() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	var n int64
	for _, p := range b.workers {
		n += p.Last().Handled
	}
	return n
}

// total is the sum of a count over all workers, the ended ones as of their last report.
func (b *bench) total(count string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	var n int64
	for _, p := range b.workers {
		n += p.Last().Stats[count]
	}
	return n
}

// stopAll ends the workers that run, in good order, and returns their exit codes.
func (b *bench) stopAll(limit time.Duration) (codes []int, err error) {
	b.mu.Lock()
	workers := b.workers
	b.mu.Unlock()
	var mu sync.Mutex
	var stopping sync.WaitGroup
	for _, p := range workers {
		select {
		case <-p.Done():
			continue
		default:
		}
		stopping.Go(func() {
			code, failure := p.Terminate(limit)
			mu.Lock()
			defer mu.Unlock()
			codes, err = append(codes, code), errors.Join(err, failure)
		})
	}
	stopping.Wait()
	return codes, err
}

// abandon ends whatever still runs, for a run that failed.
func (b *bench) abandon() {
	b.mu.Lock()
	workers := b.workers
	b.mu.Unlock()
	for _, p := range workers {
		if err := p.Kill(); err != nil {
			b.env.Logf("worker %s: %v", p.Name, err)
		}
	}
	b.proxy.Deny(func(string) bool { return false })
	b.proxy.Refuse(false)
	b.proxy.Tap(nil)
}

// verdict reads the ledgers and lets the checker decide. The workers have ended, and what is left was drained.
func (b *bench) verdict(rules check.Rules, end check.End) (*Outcome, error) {
	b.proxy.CutAll()
	err := poll(context.Background(), 10*time.Second, "every connection is closed", func() (bool, error) { return b.proxy.Open() == 0, nil })
	b.proxy.Tap(nil)
	if err = errors.Join(err, b.recorder.Close(), b.journal.close()); err != nil {
		return nil, err
	}
	evidence, err := check.Read(b.dir)
	if err != nil {
		return nil, err
	}
	evidence.Rules, evidence.End = rules, end
	hash, err := ledger.Hash(b.dir)
	if err != nil {
		return nil, err
	}
	outcome := &Outcome{Results: []check.Result{check.Check(evidence)}, Hashes: []string{hash}}
	outcome.Must(b.recorder.Failed() == 0, "%d events of the wire were not written down", b.recorder.Failed())
	outcome.Must(b.deadly || len(evidence.Dead) == 0, "%d messages were dead-lettered though no handler failed, such as %.300q", len(evidence.Dead), firstDead(evidence))
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.workers {
		outcome.PeakRSS = max(outcome.PeakRSS, p.PeakRSS())
	}
	return outcome, nil
}

func firstDead(evidence check.Evidence) string {
	if len(evidence.Dead) == 0 {
		return ""
	}
	return evidence.Dead[0].ID + ": " + evidence.Dead[0].Reason
}

// killer kills workers when a share of the load is done and the victim holds enough.
type killer struct {
	bench   *bench
	workers []*rig.Process
	cfg     worker.Config
	random  *rand.Rand
	// Least is how many messages a victim must hold.
	least int64
	total int // of the load
	// Held is what each victim held.
	held []int64
}

// run kills times times, at random moments between equal shares of the load, and starts the victim again at once.
func (k *killer) run(ctx context.Context, times int) error {
	for i := range times {
		share := float64(i) + 0.2 + 0.6*k.random.Float64()
		due := int64(float64(k.total) * share / float64(times+1))
		err := poll(ctx, 2*time.Minute, fmt.Sprintf("%d of %d handled", due, k.total), func() (bool, error) { return k.bench.handled() >= due, nil })
		if err != nil {
			return err
		}
		if err := k.kill(ctx); err != nil {
			return fmt.Errorf("kill %d: %w", i+1, err)
		}
	}
	return nil
}

// kill takes the first worker, in a random order, that holds enough.
func (k *killer) kill(ctx context.Context) error {
	var victim int
	order := k.random.Perm(len(k.workers))
	err := poll(ctx, time.Minute, fmt.Sprintf("a worker holds %d messages", k.least), func() (bool, error) {
		for _, i := range order {
			if last := k.workers[i].Last(); last.Unsettled >= k.least && ledger.Now()-last.At < int64(100*time.Millisecond) {
				victim = i
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	p := k.workers[victim]
	held := p.Last().Unsettled
	fault := k.bench.journal.begin(ledger.Fault{Kind: "SIGKILL", Target: fmt.Sprintf("%s %d", p.Name, p.PID()), Unsettled: int(held)})
	if err := p.Kill(); err != nil {
		return err
	}
	k.held = append(k.held, held)
	if err := k.bench.journal.end(fault); err != nil {
		return err
	}
	k.workers[victim], err = k.bench.start(fmt.Sprintf("w%d", victim), k.cfg)
	return err
}

// lowest is the least that any victim held, 0 without one.
func lowest(held []int64) int64 {
	if len(held) == 0 {
		return 0
	}
	least := held[0]
	for _, n := range held {
		least = min(least, n)
	}
	return least
}

// journal writes faults down.
type journal struct {
	writer *ledger.Writer
	mu     sync.Mutex
	number int
}

func newJournal(dir string) (*journal, error) {
	writer, err := ledger.Create(dir, ledger.KindFaults)
	if err != nil {
		return nil, err
	}
	return &journal{writer: writer}, nil
}

// begin numbers a fault and says that it begins now.
func (j *journal) begin(f ledger.Fault) ledger.Fault {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.number++
	f.Number, f.From = j.number, ledger.Now()
	return f
}

// end writes a fault that is over now.
func (j *journal) end(f ledger.Fault) error {
	f.Until = ledger.Now()
	return j.writer.Append(f)
}

// during writes a fault that lasts as long as do.
func (j *journal) during(f ledger.Fault, do func() error) error {
	f = j.begin(f)
	return errors.Join(do(), j.end(f))
}

func (j *journal) close() error { return j.writer.Close() }

// logOf is where a worker's log is.
func (b *bench) logOf(p *rig.Process) string { return filepath.Join(b.dir, p.Name+".log") }

// log is what a worker has logged.
func (b *bench) log(p *rig.Process) (string, error) {
	text, err := os.ReadFile(b.logOf(p))
	return string(text), err
}

// freeze stops a process by SIGSTOP for a while.
func (b *bench) freeze(ctx context.Context, p *rig.Process, d time.Duration) error {
	return b.journal.during(ledger.Fault{Kind: "SIGSTOP", Target: fmt.Sprintf("%s %d", p.Name, p.PID())}, func() error {
		if err := p.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		return errors.Join(sleep(ctx, d), p.Signal(syscall.SIGCONT))
	})
}
