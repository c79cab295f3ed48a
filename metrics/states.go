package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gobroadway/gobroadway/broadway"
)

// states turns a picture of a pipeline into gauges.
type states struct {
	maxLag int

	up, state                                     *prometheus.Desc
	unsettled, unsettledHighest, unsettledBound   *prometheus.Desc
	bytes, bytesHighest, bytesBound               *prometheus.Desc
	oldest, overdue, parked                       *prometheus.Desc
	queue, queueHighest, queueBound               *prometheus.Desc
	workers, busy, batches                        *prometheus.Desc
	stuck, circuit, held                          *prometheus.Desc
	connected, healthy, demand, lastFetch, lagged *prometheus.Desc
	skipped, truncated                            *prometheus.Desc
	insecure                                      *prometheus.Desc
}

func newStates(opts Options) *states {
	gauge := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(opts.Namespace, "", name), help,
			append([]string{"pipeline"}, labels...), opts.ConstLabels)
	}
	return &states{
		maxLag:           opts.MaxLagSeries,
		up:               gauge("up", "1 when the pipeline is ready: connected, running or paused, and healthy."),
		state:            gauge("state", "1 for the state that the pipeline is in, 0 for the others.", "state"),
		unsettled:        gauge("unsettled_messages", "Messages in flight: fetched and not settled."),
		unsettledHighest: gauge("unsettled_messages_highest", "The most messages that were ever in flight."),
		unsettledBound:   gauge("unsettled_messages_bound", "The most messages that may be in flight."),
		bytes:            gauge("unsettled_bytes", "Bytes in flight: fetched and not settled."),
		bytesHighest:     gauge("unsettled_bytes_highest", "The most bytes that were ever in flight."),
		bytesBound:       gauge("unsettled_bytes_bound", "The most bytes that may be in flight."),
		oldest:           gauge("oldest_unsettled_seconds", "Age of the oldest message in flight."),
		overdue:          gauge("overdue_messages", "Messages in flight for longer than half of the broker's time-out for acknowledging: handlers have them."),
		parked:           gauge("parked_messages", "Messages that wait for their next attempt, at any stage."),
		queue:            gauge("queue_messages", "Messages that wait for a worker, or that a batcher holds.", "stage", "name"),
		queueHighest:     gauge("queue_messages_highest", "The most messages that a batcher ever held.", "stage", "name"),
		queueBound:       gauge("queue_messages_bound", "The most messages that the queue may hold.", "stage", "name"),
		workers:          gauge("workers", "Workers of the pool, or reporters of a batcher.", "stage", "name"),
		busy:             gauge("workers_busy", "Those of them that are within a handler.", "stage", "name"),
		batches:          gauge("batches", "Batches that are open, or closed and waiting for a reporter.", "batcher", "phase"),
		stuck:            gauge("stuck_handlers", "Handlers and reporters that do not return though their time-out has passed.", "stage", "name"),
		circuit:          gauge("circuit_state", "1 for the state that the circuit of the stage is in, 0 for the others.", "stage", "name", "state"),
		held:             gauge("circuit_held_messages", "Messages that wait for the circuit of the processors to close."),
		connected:        gauge("producer_connected", "1 when the producer's first connection was made.", "producer"),
		healthy:          gauge("producer_healthy", "1 when the producer reported no error last.", "producer"),
		insecure:         gauge("tls_insecure", "1 when the producer's connections are encrypted but the server is not verified, 0 otherwise.", "producer"),
		demand:           gauge("producer_demand_messages", "Messages that the fetch that runs now may return.", "producer"),
		lastFetch:        gauge("producer_last_fetch_timestamp_seconds", "When the producer last returned messages.", "producer"),
		lagged:           gauge("lag_messages", "Messages that wait at the source, those in flight included.", "producer", "source", "partition"),
		skipped:          gauge("skipped_offsets_total", "Offsets that a policy of the producer passed over.", "producer"),
		truncated:        gauge("log_truncations_total", "Logs that were cut below what was read.", "producer"),
	}
}

func (s *states) describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		s.up, s.state, s.unsettled, s.unsettledHighest, s.unsettledBound, s.bytes, s.bytesHighest, s.bytesBound,
		s.oldest, s.overdue, s.parked, s.queue, s.queueHighest, s.queueBound, s.workers, s.busy, s.batches,
		s.stuck, s.circuit, s.held,
		s.connected, s.healthy, s.insecure, s.demand, s.lastFetch, s.lagged,
		s.skipped, s.truncated,
	} {
		out <- d
	}
}

// gauges sends values to out.
type gauges chan<- prometheus.Metric

func (g gauges) set(d *prometheus.Desc, v float64, labels ...string) {
	g.send(d, prometheus.GaugeValue, v, labels)
}

// count is set for what the producer counts itself.
func (g gauges) count(d *prometheus.Desc, n int64, labels ...string) {
	g.send(d, prometheus.CounterValue, float64(n), labels)
}

func (g gauges) send(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels []string) {
	m, err := prometheus.NewConstMetric(d, kind, v, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	g <- m
}

func (s *states) collect(out chan<- prometheus.Metric, pictures []broadway.Stats) {
	g := gauges(out)
	var lags []lag
	for _, p := range pictures {
		s.pipeline(g, p)
		s.stages(g, p)
		for i, name := range producerNames(p.Producers) {
			s.producer(g, p.Name, name, p.Producers[i])
			for _, l := range p.Producers[i].Lag {
				lags = append(lags, lag{p.Name, name, label(l.Source), strconv.Itoa(l.Partition), l.Partition, l.Messages})
			}
		}
	}
	for _, l := range boundLags(lags, s.maxLag) {
		g.set(s.lagged, float64(l.messages), l.pipeline, l.producer, l.source, l.partition)
	}
}

func (s *states) pipeline(g gauges, p broadway.Stats) {
	g.set(s.up, number(len(reasons(p)) == 0), p.Name)
	for state := broadway.StateNew; state <= broadway.StateStopped; state++ {
		g.set(s.state, number(state == p.State), p.Name, state.String())
	}
	g.set(s.unsettled, float64(p.Unsettled), p.Name)
	g.set(s.unsettledHighest, float64(p.HighestUnsettled), p.Name)
	g.set(s.unsettledBound, float64(p.MaxUnsettled), p.Name)
	g.set(s.bytes, float64(p.UnsettledBytes), p.Name)
	g.set(s.bytesHighest, float64(p.HighestUnsettledBytes), p.Name)
	g.set(s.bytesBound, float64(p.MaxUnsettledBytes), p.Name)
	g.set(s.oldest, p.OldestUnsettled.Seconds(), p.Name)
	g.set(s.overdue, float64(p.Overdue), p.Name)
	g.set(s.parked, float64(p.Processor.Parked), p.Name)
}

// stages tells the queues. What waits for a worker is bounded by what may be in
// flight; it has no highest of its own.
func (s *states) stages(g gauges, p broadway.Stats) {
	g.set(s.queue, float64(p.Processor.Queued), p.Name, "processor", "")
	g.set(s.queueBound, float64(p.MaxUnsettled), p.Name, "processor", "")
	g.set(s.workers, float64(p.Processor.Concurrency), p.Name, "processor", "")
	g.set(s.busy, float64(p.Processor.Busy), p.Name, "processor", "")
	s.health(g, p.Name, "processor", "", p.Processor.Stuck, p.Processor.Circuit)
	g.set(s.held, float64(p.Processor.Circuit.Held), p.Name)
	for _, b := range p.Batchers {
		name := label(b.Name)
		s.health(g, p.Name, "batcher", name, b.Stuck, b.Circuit)
		g.set(s.queue, float64(b.Held), p.Name, "batcher", name)
		g.set(s.queueHighest, float64(b.HighestHeld), p.Name, "batcher", name)
		g.set(s.queueBound, float64(b.Bound), p.Name, "batcher", name)
		g.set(s.workers, float64(b.Concurrency), p.Name, "batcher", name)
		g.set(s.busy, float64(b.Reporting), p.Name, "batcher", name)
		g.set(s.batches, float64(b.Open), p.Name, name, "open")
		g.set(s.batches, float64(b.Closed), p.Name, name, "closed")
	}
}

// health tells what keeps a stage from working.
func (s *states) health(g gauges, pipeline, stage, name string, stuck int, c broadway.CircuitStats) {
	g.set(s.stuck, float64(stuck), pipeline, stage, name)
	for state := broadway.CircuitClosed; state <= broadway.CircuitHalfOpen; state++ {
		g.set(s.circuit, number(state == c.State), pipeline, stage, name, state.String())
	}
}

func (s *states) producer(g gauges, pipeline, name string, p broadway.ProducerStats) {
	g.set(s.connected, number(p.Connected), pipeline, name)
	g.set(s.healthy, number(p.Err == nil), pipeline, name)
	g.set(s.insecure, number(p.TLSInsecure), pipeline, name)
	g.set(s.demand, float64(p.Asked), pipeline, name)
	if !p.LastFetch.IsZero() {
		g.set(s.lastFetch, float64(p.LastFetch.UnixNano())/1e9, pipeline, name)
	}
	if p.Gaps != nil {
		g.count(s.skipped, p.Gaps.SkippedOffsets, pipeline, name)
		g.count(s.truncated, p.Gaps.Truncations, pipeline, name)
	}
}

// producerNames are the labels of the producers of one pipeline. A name that
// was there before gets its position: equal series would fail the whole scrape.
func producerNames(producers []broadway.ProducerStats) []string {
	names := make([]string, 0, len(producers))
	seen := make(map[string]bool, len(producers))
	for i, p := range producers {
		name := label(p.Name)
		for seen[name] {
			name += "#" + strconv.Itoa(i+1)
		}
		seen[name] = true
		names = append(names, name)
	}
	return names
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
