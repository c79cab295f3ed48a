package metrics

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gobroadway/gobroadway/broadway"
)

// DefaultNamespace begins the name of every metric.
const DefaultNamespace = "broadway"

// DefaultMaxLagSeries is how many series lag_messages has at most.
const DefaultMaxLagSeries = 200

// Options says how metrics are named and how many there may be. The zero value
// is what most programs want.
type Options struct {
	// Namespace begins the name of every metric. Default "broadway".
	Namespace string
	// ConstLabels are added to every series. Default none.
	ConstLabels prometheus.Labels
	// DurationBuckets are the upper bounds of the classic buckets of durations,
	// in seconds, ascending. Default 0.1 ms to 60 s.
	DurationBuckets []float64
	// SizeBuckets are the upper bounds of the classic buckets of batch sizes,
	// in messages, ascending. Default 1 to 10,000.
	SizeBuckets []float64
	// MaxLagSeries bounds the series of lag_messages, over all pipelines.
	// Default 200. Partitions beyond it are summed; see [Metrics.Watch].
	MaxLagSeries int
}

// withDefaults is a copy of o without zero values.
func (o Options) withDefaults() Options {
	if o.Namespace == "" {
		o.Namespace = DefaultNamespace
	}
	if len(o.DurationBuckets) == 0 {
		o.DurationBuckets = []float64{1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}
	}
	if len(o.SizeBuckets) == 0 {
		o.SizeBuckets = []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000}
	}
	if o.MaxLagSeries == 0 {
		o.MaxLagSeries = DefaultMaxLagSeries
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	for name, bounds := range map[string][]float64{"DurationBuckets": o.DurationBuckets, "SizeBuckets": o.SizeBuckets} {
		if !ascending(bounds) {
			errs = append(errs, fmt.Errorf("metrics: Options.%s: %v: must ascend", name, bounds))
		}
	}
	if o.MaxLagSeries < 1 {
		errs = append(errs, fmt.Errorf("metrics: Options.MaxLagSeries: %d: must be at least 1", o.MaxLagSeries))
	}
	return errors.Join(errs...)
}

// ascending says whether bounds ascend strictly. A NaN never does.
func ascending(bounds []float64) bool {
	for i, bound := range bounds {
		if math.IsNaN(bound) || i > 0 && bound <= bounds[i-1] {
			return false
		}
	}
	return true
}

// Pipeline is what can be watched: a *broadway.Pipeline, or what embeds one.
type Pipeline interface {
	// Stats is a picture of the pipeline as it is now.
	Stats() broadway.Stats
}

// Metrics are the metrics of any number of pipelines.
type Metrics struct {
	observer *observer
	states   *states

	mu      sync.Mutex // protects following fields
	watched []watched
}

type watched struct {
	name     string
	pipeline Pipeline
}

// New makes metrics and registers them. They are one collector, so either all
// are registered or none is: an error says that names are invalid, or that
// metrics of the same namespace are registered with registerer already.
func New(registerer prometheus.Registerer, opts Options) (*Metrics, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	m := &Metrics{observer: newObserver(opts, time.Now()), states: newStates(opts)}
	if err := registerer.Register(collector{m}); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return m, nil
}

// Observer is what goes into broadway.Config.Observer, of one or of many
// pipelines. It also is a broadway.RetryObserver.
func (m *Metrics) Observer() broadway.Observer { return m.observer }

// Watch reads p's Stats at each scrape from now on. It is an error to watch two
// pipelines of the same name: their series would be the same.
//
// Lag has one series per partition up to [Options.MaxLagSeries]; beyond that,
// those of lower partition numbers keep theirs, and the others are summed per
// source in partition="other". With more sources than half of the bound, they
// are summed per producer in source="other".
func (m *Metrics) Watch(p Pipeline) error {
	name := pipelineName(p.Stats().Name)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.watched {
		if w.name == name {
			return fmt.Errorf("metrics: a pipeline named %q is watched already", name)
		}
	}
	m.watched = append(m.watched, watched{name, p})
	return nil
}

// Unwatch ends what Watch began: the gauges of p are gone from the next scrape
// on. Its counters stay.
func (m *Metrics) Unwatch(p Pipeline) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watched = slices.DeleteFunc(m.watched, func(w watched) bool { return w.pipeline == p })
}

// pictures reads the Stats of all pipelines, outside of the lock.
func (m *Metrics) pictures() []broadway.Stats {
	m.mu.Lock()
	all := slices.Clone(m.watched)
	m.mu.Unlock()
	out := make([]broadway.Stats, 0, len(all))
	for _, w := range all {
		s := w.pipeline.Stats()
		s.Name = w.name
		out = append(out, s)
	}
	return out
}

// collector is what is registered. It keeps Collect out of the methods of
// Metrics.
type collector struct{ m *Metrics }

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	c.m.observer.describe(out)
	c.m.states.describe(out)
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	pictures := c.m.pictures()
	c.m.observer.prime(pictures)
	c.m.observer.collect(out)
	c.m.states.collect(out, pictures)
}

// pipelineName is the label of a pipeline.
func pipelineName(name string) string {
	if name == "" {
		name = "pipeline"
	}
	return label(name)
}

// label is value in valid UTF-8; client_golang panics at anything else. What is
// not valid is escaped, so that different names stay different.
func label(value string) string {
	if utf8.ValidString(value) {
		return value
	}
	return strconv.Quote(value)
}
