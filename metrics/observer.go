package metrics

import (
	"context"
	"errors"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gobroadway/gobroadway/broadway"
)

// observer counts what pipelines tell. An event costs a look-up in a map that
// is never written while it is read, and a few atomic additions.
type observer struct {
	fetched      *prometheus.CounterVec
	fetchedBytes *prometheus.CounterVec
	fetchErrors  *prometheus.CounterVec
	handled      *prometheus.CounterVec
	settled      *prometheus.CounterVec
	settleErrors *prometheus.CounterVec
	retries      *prometheus.CounterVec
	reported     *prometheus.CounterVec
	batches      *prometheus.CounterVec
	reportTime   *prometheus.HistogramVec
	batchSize    *prometheus.HistogramVec
	handleTime   *prometheus.Desc

	pipelines *cache[string, *pipelineSeries]
	producers *cache[[2]string, *producerSeries]
	batchers  *cache[[2]string, *batcherSeries]
	stages    *cache[[2]string, prometheus.Counter]
	// times are kept by label, not by name: names that differ in what no label
	// can hold share one histogram, as they share the counters.
	times *cache[string, *weighted]
}

// pipelineSeries are the series of one pipeline.
type pipelineSeries struct {
	handled, handleFailures                           prometheus.Counter
	succeeded, failed, deadLettered, released, staled prometheus.Counter
	settleErrors                                      prometheus.Counter
	handleTime                                        *weighted
}

// producerSeries are the series of one producer of one pipeline.
type producerSeries struct{ messages, bytes, errors prometheus.Counter }

// batcherSeries are the series of one batcher of one pipeline.
type batcherSeries struct {
	succeeded, failed prometheus.Counter
	batches           [broadway.TriggerDrain + 1]prometheus.Counter
	duration, size    prometheus.Observer
}

var (
	_ broadway.Observer      = (*observer)(nil)
	_ broadway.RetryObserver = (*observer)(nil)
)

func newObserver(opts Options, now time.Time) *observer {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: opts.Namespace, Name: name, Help: help, ConstLabels: opts.ConstLabels,
		}, append([]string{"pipeline"}, labels...))
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: opts.Namespace, Name: name, Help: help, ConstLabels: opts.ConstLabels, Buckets: buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"pipeline", "batcher"})
	}
	o := &observer{
		fetched:      counter("fetched_messages_total", "Messages that producers returned.", "producer"),
		fetchedBytes: counter("fetched_bytes_total", "Bytes of the messages that producers returned.", "producer"),
		fetchErrors:  counter("fetch_errors_total", "Fetches that failed; the end of a source is no error.", "producer"),
		handled:      counter("handled_messages_total", "Handlings by processors, retries included.", "result"),
		settled:      counter("settled_messages_total", "Messages that left the pipeline, by outcome.", "outcome"),
		settleErrors: counter("settle_errors_total", "Groups of messages that could not be settled and were released."),
		retries:      counter("retries_total", "Messages that were parked for another attempt, by the stage that failed.", "stage"),
		reported:     counter("reported_messages_total", "Members of reported batches, retries included.", "batcher", "result"),
		batches:      counter("batches_total", "Batches that were reported, by why they were closed.", "batcher", "trigger"),
		reportTime:   histogram("report_duration_seconds", "Time that a reporter took for one batch.", opts.DurationBuckets),
		batchSize:    histogram("batch_messages", "Messages in one reported batch.", opts.SizeBuckets),
		handleTime: prometheus.NewDesc(prometheus.BuildFQName(opts.Namespace, "", "handle_duration_seconds"),
			"Time that a processor took for one message: of each visit of a worker to the queue, its mean, weighted by its messages.",
			[]string{"pipeline"}, opts.ConstLabels),
	}
	o.times = newCache(func(string) *weighted { return newWeighted(opts.DurationBuckets, now) })
	o.pipelines = newCache(o.newPipeline)
	o.producers = newCache(o.newProducer)
	o.batchers = newCache(o.newBatcher)
	o.stages = newCache(func(k [2]string) prometheus.Counter {
		return o.retries.WithLabelValues(pipelineName(k[0]), label(k[1]))
	})
	return o
}

func (o *observer) newPipeline(name string) *pipelineSeries {
	name = pipelineName(name)
	return &pipelineSeries{
		handled:        o.handled.WithLabelValues(name, "succeeded"),
		handleFailures: o.handled.WithLabelValues(name, "failed"),
		succeeded:      o.settled.WithLabelValues(name, "succeeded"),
		failed:         o.settled.WithLabelValues(name, "failed"),
		deadLettered:   o.settled.WithLabelValues(name, "dead_lettered"),
		released:       o.settled.WithLabelValues(name, "released"),
		staled:         o.settled.WithLabelValues(name, "stale"),
		settleErrors:   o.settleErrors.WithLabelValues(name),
		handleTime:     o.times.get(name),
	}
}

func (o *observer) newProducer(k [2]string) *producerSeries {
	pipeline, producer := pipelineName(k[0]), label(k[1])
	return &producerSeries{
		messages: o.fetched.WithLabelValues(pipeline, producer),
		bytes:    o.fetchedBytes.WithLabelValues(pipeline, producer),
		errors:   o.fetchErrors.WithLabelValues(pipeline, producer),
	}
}

func (o *observer) newBatcher(k [2]string) *batcherSeries {
	pipeline, batcher := pipelineName(k[0]), label(k[1])
	s := &batcherSeries{
		succeeded: o.reported.WithLabelValues(pipeline, batcher, "succeeded"),
		failed:    o.reported.WithLabelValues(pipeline, batcher, "failed"),
		duration:  o.reportTime.WithLabelValues(pipeline, batcher),
		size:      o.batchSize.WithLabelValues(pipeline, batcher),
	}
	for t := range s.batches {
		s.batches[t] = o.batches.WithLabelValues(pipeline, batcher, broadway.Trigger(t).String())
	}
	return s
}

// Fetched implements broadway.Observer.
func (o *observer) Fetched(e broadway.FetchEvent) {
	s := o.producers.get([2]string{e.Pipeline, e.Producer})
	s.messages.Add(float64(e.Messages))
	s.bytes.Add(float64(e.Bytes))
	if failed(e.Err) {
		s.errors.Inc()
	}
}

// failed says whether err of a Fetch is a fault: not the end of a finite
// source, of the pipeline, or of a demand that was too small.
func failed(err error) bool {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return false
	}
	_, small := broadway.NeededBytes(err)
	return !small
}

// Handled implements broadway.Observer.
func (o *observer) Handled(e broadway.HandleEvent) {
	s := o.pipelines.get(e.Pipeline)
	s.handled.Add(float64(e.Succeeded))
	s.handleFailures.Add(float64(e.Failed))
	s.handleTime.observe(e.Duration, e.Succeeded+e.Failed)
}

// Reported implements broadway.Observer.
func (o *observer) Reported(e broadway.ReportEvent) {
	s := o.batchers.get([2]string{e.Pipeline, e.Batcher})
	s.succeeded.Add(float64(e.Messages - e.Failed))
	s.failed.Add(float64(e.Failed))
	s.duration.Observe(max(e.Duration, 0).Seconds())
	s.size.Observe(float64(e.Messages))
	if int(e.Trigger) < len(s.batches) {
		s.batches[e.Trigger].Inc()
	}
}

// Settled implements broadway.Observer.
func (o *observer) Settled(e broadway.SettleEvent) {
	s := o.pipelines.get(e.Pipeline)
	s.succeeded.Add(float64(e.Succeeded))
	s.failed.Add(float64(e.Failed))
	s.deadLettered.Add(float64(e.DeadLettered))
	s.released.Add(float64(e.Released))
	s.staled.Add(float64(e.Stale))
	if e.Err != nil {
		s.settleErrors.Inc()
	}
}

// Retrying implements broadway.RetryObserver.
func (o *observer) Retrying(pipeline, stage string, _ *broadway.Message, _ time.Duration, _ error) {
	o.stages.get([2]string{pipeline, stage}).Inc()
}

// prime makes the series of the pipelines that are watched, so that a counter
// is there, and 0, before the first event.
func (o *observer) prime(pictures []broadway.Stats) {
	for _, p := range pictures {
		o.pipelines.get(p.Name)
		for _, producer := range p.Producers {
			o.producers.get([2]string{p.Name, producer.Name})
		}
		o.stages.get([2]string{p.Name, "processor"})
		for _, b := range p.Batchers {
			o.batchers.get([2]string{p.Name, b.Name})
			o.stages.get([2]string{p.Name, b.Name})
		}
	}
}

func (o *observer) vectors() []prometheus.Collector {
	return []prometheus.Collector{
		o.fetched, o.fetchedBytes, o.fetchErrors, o.handled, o.settled, o.settleErrors,
		o.retries, o.reported, o.batches, o.reportTime, o.batchSize,
	}
}

func (o *observer) describe(out chan<- *prometheus.Desc) {
	for _, v := range o.vectors() {
		v.Describe(out)
	}
	out <- o.handleTime
}

func (o *observer) collect(out chan<- prometheus.Metric) {
	for _, v := range o.vectors() {
		v.Collect(out)
	}
	for name, times := range o.times.all() {
		out <- times.metric(o.handleTime, name)
	}
}

// cache keeps what was made for each key. Reading takes no lock; the keys come
// from configurations, so there are few and they come early.
type cache[K comparable, V any] struct {
	fresh   func(K) V
	entries atomic.Pointer[map[K]V] // replaced, never written to
	mu      sync.Mutex              // held by the one that replaces entries
}

func newCache[K comparable, V any](fresh func(K) V) *cache[K, V] {
	c := &cache[K, V]{fresh: fresh}
	c.entries.Store(new(map[K]V))
	return c
}

func (c *cache[K, V]) all() map[K]V { return *c.entries.Load() }

func (c *cache[K, V]) get(k K) V {
	if v, ok := c.all()[k]; ok {
		return v
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.all()[k]; ok {
		return v
	}
	next := maps.Clone(c.all())
	if next == nil {
		next = make(map[K]V, 1)
	}
	v := c.fresh(k)
	next[k] = v
	c.entries.Store(&next)
	return v
}
