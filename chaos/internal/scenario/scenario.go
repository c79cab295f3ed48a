// Package scenario has what chaos tries: each scenario as a function, and the benches they are built
// on. README.md of the module says how to add one.
package scenario

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
)

// A Scenario is one thing that is tried.
type Scenario struct {
	// ID is a letter for the kind and a number, such as "A2", with a letter added where one has several runs: "B11a".
	ID, Title string
	// Severity is "S1" (silent loss or false ack), "S2" (stuck, unbounded) or "S3" (degraded).
	Severity string
	// Limit is the pass line, in words.
	Limit string
	// CI says that the scaled-down form runs in CI.
	CI bool
	// Run tries it. Its error means that it could not be tried to the end, which is no pass.
	Run func(ctx context.Context, env *Env) (*Outcome, error)
}

// Outcome is what came out.
type Outcome struct {
	// Result is the checker's, of each run that the scenario made: most make one.
	Results []check.Result
	// Missed names each further pass term that was missed. None, and no broken counter, is a pass.
	Missed []string
	// Notes are measured figures and circumstances, for the reader.
	Notes []string
	// Hashes are of the ledgers.
	Hashes []string
	// PeakRSS is the most memory that a worker had, in bytes.
	PeakRSS int64
}

// Pass says whether every pass term was met.
func (o *Outcome) Pass() bool {
	for _, result := range o.Results {
		if !result.Pass() {
			return false
		}
	}
	return len(o.Missed) == 0 && (len(o.Results) > 0 || len(o.Notes) > 0)
}

// Reasons say why it is no pass.
func (o *Outcome) Reasons() []string {
	reasons := append([]string(nil), o.Missed...)
	for _, result := range o.Results {
		reasons = append(reasons, result.Reasons()...)
	}
	return reasons
}

// Total is a counter's sum over all runs.
func (o *Outcome) Total(counter check.Counter) int {
	n := 0
	for _, result := range o.Results {
		n += result.Counts[counter]
	}
	return n
}

// Must adds a missed term unless ok.
func (o *Outcome) Must(ok bool, format string, args ...any) {
	if !ok {
		o.Missed = append(o.Missed, fmt.Sprintf(format, args...))
	}
}

// Note adds a note.
func (o *Outcome) Note(format string, args ...any) {
	o.Notes = append(o.Notes, fmt.Sprintf(format, args...))
}

// add takes in another run's outcome.
func (o *Outcome) add(other *Outcome) {
	o.Results = append(o.Results, other.Results...)
	o.Missed = append(o.Missed, other.Missed...)
	o.Notes = append(o.Notes, other.Notes...)
	o.Hashes = append(o.Hashes, other.Hashes...)
	o.PeakRSS = max(o.PeakRSS, other.PeakRSS)
}

// Env is what a scenario is given.
type Env struct {
	// Seed is the run's. [Env.Rand] draws from it and the scenario's id, so that a scenario replays by itself.
	Seed uint64
	// Scale is 1 at full size.
	Scale float64
	// Dir is the scenario's own, for ledgers, configurations and logs.
	Dir string
	// ID is the scenario's.
	ID string
	// Logf tells how it goes.
	Logf func(format string, args ...any)

	rigs *Rigs

	mu   sync.Mutex // protects following field
	runs int
}

// Rigs are brokers that scenarios share, one after the other: each has topics, queues and groups of its own. A scenario that needs settings of
// its own starts a rig with [rig.StartKafka].
type Rigs struct {
	host   *brokers.Host
	kafka  *rig.Kafka
	rabbit *rig.RabbitMQ
}

// NewRigs makes rigs that start when they are first asked for.
func NewRigs(logf func(format string, args ...any)) *Rigs {
	return &Rigs{host: brokers.NewHost("chaos", logf)}
}

// Close ends the brokers.
func (r *Rigs) Close() error { return r.host.Close() }

// NewEnv makes the environment of a scenario. dir must be empty or absent.
func NewEnv(id string, seed uint64, scale float64, dir string, rigs *Rigs, logf func(format string, args ...any)) (*Env, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Env{ID: id, Seed: seed, Scale: scale, Dir: dir, Logf: logf, rigs: rigs}, nil
}

// Rand is a generator of its own for each name within the scenario.
func (e *Env) Rand(name string) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%s", e.ID, name)
	return rand.New(rand.NewPCG(e.Seed, h.Sum64()))
}

// N scales a size, at least least.
func (e *Env) N(full, least int) int {
	return max(least, int(math.Round(float64(full)*e.Scale)))
}

// Times scales a number of faults, which shrinks by the root only: each must still have something to hit.
func (e *Env) Times(full, least int) int {
	return min(full, max(least, int(math.Round(float64(full)*math.Sqrt(e.Scale)))))
}

// For scales the length of a phase, at least least.
func (e *Env) For(full, least time.Duration) time.Duration {
	return max(least, time.Duration(float64(full)*e.Scale))
}

// Kafka is the shared rig K, which runs.
func (e *Env) Kafka() (*rig.Kafka, error) {
	if e.rigs.kafka == nil {
		kafka, err := rig.StartKafka(e.rigs.host)
		if err != nil {
			return nil, err
		}
		e.rigs.kafka = kafka
	}
	return e.rigs.kafka, nil
}

// RabbitMQ is the shared rig R, which runs.
func (e *Env) RabbitMQ() (*rig.RabbitMQ, error) {
	if e.rigs.rabbit == nil {
		rabbit, err := rig.StartRabbitMQ(e.rigs.host)
		if err != nil {
			return nil, err
		}
		e.rigs.rabbit = rabbit
	}
	return e.rigs.rabbit, nil
}

// newRun makes the directory of the scenario's next run, and its name, which is unique at the broker.
func (e *Env) newRun() (name, dir string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.runs++
	name = fmt.Sprintf("%s-%d-%x", e.ID, e.runs, time.Now().UnixNano()&0xffffff)
	dir = filepath.Join(e.Dir, fmt.Sprintf("run-%d", e.runs))
	return name, dir, os.MkdirAll(dir, 0o700)
}

// poll asks until is returns true, every 20 ms, at most limit. what is for the error.
func poll(ctx context.Context, limit time.Duration, what string, is func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %v: %s", limit, what))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := is()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// sleep waits, unless ctx ends: for phases of faults, whose length is part of the scenario.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
