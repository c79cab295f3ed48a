package metrics_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/metrics"
)

// busy is a pipeline at work, with a different number in each field.
func busy() *still {
	return &still{broadway.Stats{
		Name: "orders", State: broadway.StateRunning,
		Unsettled: 11, HighestUnsettled: 12, MaxUnsettled: 13,
		UnsettledBytes: 21, HighestUnsettledBytes: 22, MaxUnsettledBytes: 23,
		OldestUnsettled: 1500 * time.Millisecond, Overdue: 14,
		Producers: []broadway.ProducerStats{{
			Name: "topic", Kind: "kafka", Connected: true, TLSInsecure: true, Asked: 31, LastFetch: time.Unix(1700000000, 0),
			Lag:  []broadway.Lag{{Source: "topic", Partition: 0, Messages: 32}, {Source: "topic", Partition: 1, Messages: 33}},
			Gaps: &broadway.Gaps{SkippedOffsets: 34, Truncations: 35},
		}},
		Processor: broadway.ProcessorStats{Concurrency: 41, Busy: 42, Queued: 43, Parked: 44, Stuck: 45,
			Circuit: broadway.CircuitStats{Held: 46}},
		Batchers: []broadway.BatcherStats{{
			Name: "store", Concurrency: 51, Held: 52, HighestHeld: 53, Bound: 54, Open: 55, Closed: 56, Reporting: 57, Stuck: 58,
			Circuit: broadway.CircuitStats{State: broadway.CircuitHalfOpen},
		}},
	}}
}

func TestGaugesAreWhatStatsSays(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{})
	require.NoError(t, m.Watch(busy()))
	want := `
# HELP broadway_batches Batches that are open, or closed and waiting for a reporter.
# TYPE broadway_batches gauge
broadway_batches{batcher="store",phase="closed",pipeline="orders"} 56
broadway_batches{batcher="store",phase="open",pipeline="orders"} 55
# HELP broadway_circuit_held_messages Messages that wait for the circuit of the processors to close.
# TYPE broadway_circuit_held_messages gauge
broadway_circuit_held_messages{pipeline="orders"} 46
# HELP broadway_circuit_state 1 for the state that the circuit of the stage is in, 0 for the others.
# TYPE broadway_circuit_state gauge
broadway_circuit_state{name="",pipeline="orders",stage="processor",state="closed"} 1
broadway_circuit_state{name="",pipeline="orders",stage="processor",state="half_open"} 0
broadway_circuit_state{name="",pipeline="orders",stage="processor",state="open"} 0
broadway_circuit_state{name="store",pipeline="orders",stage="batcher",state="closed"} 0
broadway_circuit_state{name="store",pipeline="orders",stage="batcher",state="half_open"} 1
broadway_circuit_state{name="store",pipeline="orders",stage="batcher",state="open"} 0
# HELP broadway_lag_messages Messages that wait at the source, those in flight included.
# TYPE broadway_lag_messages gauge
broadway_lag_messages{partition="0",pipeline="orders",producer="topic",source="topic"} 32
broadway_lag_messages{partition="1",pipeline="orders",producer="topic",source="topic"} 33
# HELP broadway_log_truncations_total Logs that were cut below what was read.
# TYPE broadway_log_truncations_total counter
broadway_log_truncations_total{pipeline="orders",producer="topic"} 35
# HELP broadway_oldest_unsettled_seconds Age of the oldest message in flight.
# TYPE broadway_oldest_unsettled_seconds gauge
broadway_oldest_unsettled_seconds{pipeline="orders"} 1.5
# HELP broadway_overdue_messages Messages in flight for longer than half of the broker's time-out for acknowledging: handlers have them.
# TYPE broadway_overdue_messages gauge
broadway_overdue_messages{pipeline="orders"} 14
# HELP broadway_parked_messages Messages that wait for their next attempt, at any stage.
# TYPE broadway_parked_messages gauge
broadway_parked_messages{pipeline="orders"} 44
# HELP broadway_producer_connected 1 when the producer's first connection was made.
# TYPE broadway_producer_connected gauge
broadway_producer_connected{pipeline="orders",producer="topic"} 1
# HELP broadway_producer_demand_messages Messages that the fetch that runs now may return.
# TYPE broadway_producer_demand_messages gauge
broadway_producer_demand_messages{pipeline="orders",producer="topic"} 31
# HELP broadway_producer_healthy 1 when the producer reported no error last.
# TYPE broadway_producer_healthy gauge
broadway_producer_healthy{pipeline="orders",producer="topic"} 1
# HELP broadway_producer_last_fetch_timestamp_seconds When the producer last returned messages.
# TYPE broadway_producer_last_fetch_timestamp_seconds gauge
broadway_producer_last_fetch_timestamp_seconds{pipeline="orders",producer="topic"} 1.7e+09
# HELP broadway_queue_messages Messages that wait for a worker, or that a batcher holds.
# TYPE broadway_queue_messages gauge
broadway_queue_messages{name="",pipeline="orders",stage="processor"} 43
broadway_queue_messages{name="store",pipeline="orders",stage="batcher"} 52
# HELP broadway_queue_messages_bound The most messages that the queue may hold.
# TYPE broadway_queue_messages_bound gauge
broadway_queue_messages_bound{name="",pipeline="orders",stage="processor"} 13
broadway_queue_messages_bound{name="store",pipeline="orders",stage="batcher"} 54
# HELP broadway_queue_messages_highest The most messages that a batcher ever held.
# TYPE broadway_queue_messages_highest gauge
broadway_queue_messages_highest{name="store",pipeline="orders",stage="batcher"} 53
# HELP broadway_skipped_offsets_total Offsets that a policy of the producer passed over.
# TYPE broadway_skipped_offsets_total counter
broadway_skipped_offsets_total{pipeline="orders",producer="topic"} 34
# HELP broadway_state 1 for the state that the pipeline is in, 0 for the others.
# TYPE broadway_state gauge
broadway_state{pipeline="orders",state="connecting"} 0
broadway_state{pipeline="orders",state="draining"} 0
broadway_state{pipeline="orders",state="new"} 0
broadway_state{pipeline="orders",state="paused"} 0
broadway_state{pipeline="orders",state="running"} 1
broadway_state{pipeline="orders",state="stopped"} 0
# HELP broadway_stuck_handlers Handlers and reporters that do not return though their time-out has passed.
# TYPE broadway_stuck_handlers gauge
broadway_stuck_handlers{name="",pipeline="orders",stage="processor"} 45
broadway_stuck_handlers{name="store",pipeline="orders",stage="batcher"} 58
# HELP broadway_tls_insecure 1 when the producer's connections are encrypted but the server is not verified, 0 otherwise.
# TYPE broadway_tls_insecure gauge
broadway_tls_insecure{pipeline="orders",producer="topic"} 1
# HELP broadway_unsettled_bytes Bytes in flight: fetched and not settled.
# TYPE broadway_unsettled_bytes gauge
broadway_unsettled_bytes{pipeline="orders"} 21
# HELP broadway_unsettled_bytes_bound The most bytes that may be in flight.
# TYPE broadway_unsettled_bytes_bound gauge
broadway_unsettled_bytes_bound{pipeline="orders"} 23
# HELP broadway_unsettled_bytes_highest The most bytes that were ever in flight.
# TYPE broadway_unsettled_bytes_highest gauge
broadway_unsettled_bytes_highest{pipeline="orders"} 22
# HELP broadway_unsettled_messages Messages in flight: fetched and not settled.
# TYPE broadway_unsettled_messages gauge
broadway_unsettled_messages{pipeline="orders"} 11
# HELP broadway_unsettled_messages_bound The most messages that may be in flight.
# TYPE broadway_unsettled_messages_bound gauge
broadway_unsettled_messages_bound{pipeline="orders"} 13
# HELP broadway_unsettled_messages_highest The most messages that were ever in flight.
# TYPE broadway_unsettled_messages_highest gauge
broadway_unsettled_messages_highest{pipeline="orders"} 12
# HELP broadway_up 1 when the pipeline is ready: connected, running or paused, and healthy.
# TYPE broadway_up gauge
broadway_up{pipeline="orders"} 1
# HELP broadway_workers Workers of the pool, or reporters of a batcher.
# TYPE broadway_workers gauge
broadway_workers{name="",pipeline="orders",stage="processor"} 41
broadway_workers{name="store",pipeline="orders",stage="batcher"} 51
# HELP broadway_workers_busy Those of them that are within a handler.
# TYPE broadway_workers_busy gauge
broadway_workers_busy{name="",pipeline="orders",stage="processor"} 42
broadway_workers_busy{name="store",pipeline="orders",stage="batcher"} 57
`
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(want),
		"broadway_skipped_offsets_total", "broadway_log_truncations_total",
		"broadway_circuit_held_messages", "broadway_circuit_state", "broadway_stuck_handlers",
		"broadway_batches", "broadway_lag_messages", "broadway_oldest_unsettled_seconds", "broadway_overdue_messages", "broadway_parked_messages",
		"broadway_producer_connected", "broadway_producer_demand_messages", "broadway_producer_healthy",
		"broadway_producer_last_fetch_timestamp_seconds", "broadway_queue_messages", "broadway_queue_messages_bound",
		"broadway_queue_messages_highest", "broadway_state", "broadway_tls_insecure", "broadway_unsettled_bytes", "broadway_unsettled_bytes_bound",
		"broadway_unsettled_bytes_highest", "broadway_unsettled_messages", "broadway_unsettled_messages_bound",
		"broadway_unsettled_messages_highest", "broadway_up", "broadway_workers", "broadway_workers_busy"))
}

// A queue has no offsets: there is nothing to count.
func TestSourcesThatAreNoLogsHaveNoGaps(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{})
	p := busy()
	p.stats.Producers[0].Gaps = nil
	require.NoError(t, m.Watch(p))
	n, err := testutil.GatherAndCount(registry, "broadway_skipped_offsets_total", "broadway_log_truncations_total")
	require.NoError(t, err)
	require.Zero(t, n)
}

func TestNamesPassTheLinter(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{})
	require.NoError(t, m.Watch(busy()))
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestCountersOfAWatchedPipelineStartAtZero(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{})
	require.NoError(t, m.Watch(busy()))
	for name, series := range map[string]int{
		"broadway_fetched_messages_total": 1, "broadway_settled_messages_total": 5, "broadway_retries_total": 2,
		"broadway_batches_total": 7, "broadway_fetch_errors_total": 1, "broadway_handle_duration_seconds": 1,
	} {
		n, err := testutil.GatherAndCount(registry, name)
		require.NoError(t, err)
		require.Equal(t, series, n, name)
	}
}

func TestTwoPipelinesOfOneNameCannotBeWatched(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{})
	first := busy()
	require.NoError(t, m.Watch(first))
	require.ErrorContains(t, m.Watch(busy()), `"orders"`)
	_, err := testutil.GatherAndCount(registry)
	require.NoError(t, err)

	m.Unwatch(first)
	n, err := testutil.GatherAndCount(registry, "broadway_up")
	require.NoError(t, err)
	require.Zero(t, n, "an unwatched pipeline has no gauges")
	require.NoError(t, m.Watch(busy()), "its name is free again")
}

func TestProducersOfOneNameDoNotBreakTheScrape(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{})
	p := busy()
	p.stats.Producers = []broadway.ProducerStats{{Name: "x", Connected: true}, {Name: "x"}, {Name: "x#2"}}
	require.NoError(t, m.Watch(p))
	n, err := testutil.GatherAndCount(registry, "broadway_producer_connected")
	require.NoError(t, err)
	require.Equal(t, 3, n)
}

func TestUpIsReadiness(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*broadway.Stats)
		up     int
	}{
		"running":       {func(*broadway.Stats) {}, 1},
		"paused":        {func(s *broadway.Stats) { s.State = broadway.StatePaused }, 1},
		"new":           {func(s *broadway.Stats) { s.State = broadway.StateNew }, 0},
		"connecting":    {func(s *broadway.Stats) { s.State = broadway.StateConnecting }, 0},
		"draining":      {func(s *broadway.Stats) { s.State = broadway.StateDraining }, 0},
		"stopped":       {func(s *broadway.Stats) { s.State = broadway.StateStopped }, 0},
		"not connected": {func(s *broadway.Stats) { s.Producers[0].Connected = false }, 0},
		"fetch failed":  {func(s *broadway.Stats) { s.Producers[0].Err = errors.New("refused") }, 0},
		"unhealthy":     {func(s *broadway.Stats) { s.Err = errors.New("stuck") }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			m, registry := newMetrics(t, metrics.Options{})
			p := busy()
			c.change(&p.stats)
			require.NoError(t, m.Watch(p))
			require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(fmt.Sprintf(`
# HELP broadway_up 1 when the pipeline is ready: connected, running or paused, and healthy.
# TYPE broadway_up gauge
broadway_up{pipeline="orders"} %d
`, c.up)), "broadway_up"))
		})
	}
}

// lagSeries are the series of lag_messages by "source/partition".
func lagSeries(t *testing.T, opts metrics.Options, lags []broadway.Lag) map[string]float64 {
	t.Helper()
	m, registry := newMetrics(t, opts)
	p := busy()
	p.stats.Producers[0].Lag = lags
	require.NoError(t, m.Watch(p))
	families, err := registry.Gather()
	require.NoError(t, err)
	series := make(map[string]float64)
	for _, f := range families {
		if f.GetName() != "broadway_lag_messages" {
			continue
		}
		for _, metric := range f.Metric {
			labels := make(map[string]string)
			for _, l := range metric.Label {
				labels[l.GetName()] = l.GetValue()
			}
			series[labels["source"]+"/"+labels["partition"]] = metric.Gauge.GetValue()
		}
	}
	return series
}

func partitions(source string, n int) []broadway.Lag {
	var lags []broadway.Lag
	for i := range n {
		lags = append(lags, broadway.Lag{Source: source, Partition: i, Messages: int64(i) + 1})
	}
	return lags
}

func sum(series map[string]float64) (total float64) {
	for _, v := range series {
		total += v
	}
	return total
}

func TestLagHasABoundedNumberOfSeries(t *testing.T) {
	t.Run("at the bound all have their own", func(t *testing.T) {
		series := lagSeries(t, metrics.Options{}, partitions("t", 200))
		require.Len(t, series, 200)
		require.NotContains(t, series, "t/other")
	})
	t.Run("beyond it the last are summed", func(t *testing.T) {
		series := lagSeries(t, metrics.Options{}, partitions("t", 1000))
		require.Len(t, series, 200)
		require.EqualValues(t, 199, series["t/198"])
		require.NotContains(t, series, "t/199")
		require.EqualValues(t, 1000*1001/2-199*200/2, series["t/other"])
	})
	t.Run("each source keeps its sum", func(t *testing.T) {
		series := lagSeries(t, metrics.Options{MaxLagSeries: 10}, append(partitions("a", 100), partitions("b", 2)...))
		require.Len(t, series, 9, "8 of their own and the sum of a; b needs none")
		require.Equal(t, 3.0, series["b/0"]+series["b/1"], "partition 0 of each source comes before partition 1 of any")
		require.EqualValues(t, 100*101/2+3, sum(series))
	})
	t.Run("too many sources are summed in one", func(t *testing.T) {
		var lags []broadway.Lag
		for i := range 100_000 {
			lags = append(lags, broadway.Lag{Source: fmt.Sprint("t", i), Messages: 2})
		}
		series := lagSeries(t, metrics.Options{}, lags)
		require.Len(t, series, 101)
		require.EqualValues(t, 200_000, sum(series))
		require.EqualValues(t, 2*(100_000-100), series["other/other"])
	})
	t.Run("a partition that is told twice is one series", func(t *testing.T) {
		series := lagSeries(t, metrics.Options{}, append(partitions("t", 2), partitions("t", 2)...))
		require.Equal(t, map[string]float64{"t/0": 2, "t/1": 4}, series)
	})
}

func TestLagSeriesDoNotDependOnTheOrderOfPartitions(t *testing.T) {
	lags := append(partitions("a", 100), partitions("b", 100)...)
	want := lagSeries(t, metrics.Options{MaxLagSeries: 50}, lags)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(lags), func(i, j int) { lags[i], lags[j] = lags[j], lags[i] })
	require.Equal(t, want, lagSeries(t, metrics.Options{MaxLagSeries: 50}, lags))
}
