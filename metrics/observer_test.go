package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/metrics"
)

func newMetrics(t testing.TB, opts metrics.Options) (*metrics.Metrics, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	m, err := metrics.New(registry, opts)
	require.NoError(t, err)
	return m, registry
}

func TestEventsAreCounted(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{})
	o := m.Observer()
	o.Fetched(broadway.FetchEvent{Pipeline: "p", Producer: "posts", Messages: 7, Bytes: 700})
	o.Fetched(broadway.FetchEvent{Pipeline: "p", Producer: "posts", Messages: 3, Bytes: 30})
	o.Handled(broadway.HandleEvent{Pipeline: "p", Succeeded: 8, Failed: 2, Duration: time.Second})
	o.Reported(broadway.ReportEvent{Pipeline: "p", Batcher: "store", Trigger: broadway.TriggerSize, Messages: 8, Failed: 1, Duration: time.Second})
	o.Settled(broadway.SettleEvent{Pipeline: "p", Succeeded: 7, Failed: 1, DeadLettered: 2, Released: 3, Stale: 4})
	o.Settled(broadway.SettleEvent{Pipeline: "p", Released: 5, Err: errors.New("channel closed")})
	retry, ok := o.(broadway.RetryObserver)
	require.True(t, ok, "the observer must be a RetryObserver")
	retry.Retrying("p", "processor", nil, time.Second, io.ErrUnexpectedEOF)
	retry.Retrying("p", "store", nil, time.Second, io.ErrUnexpectedEOF)
	retry.Retrying("p", "store", nil, time.Second, io.ErrUnexpectedEOF)

	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP broadway_batches_total Batches that were reported, by why they were closed.
# TYPE broadway_batches_total counter
broadway_batches_total{batcher="store",pipeline="p",trigger="bytes"} 0
broadway_batches_total{batcher="store",pipeline="p",trigger="drain"} 0
broadway_batches_total{batcher="store",pipeline="p",trigger="flush"} 0
broadway_batches_total{batcher="store",pipeline="p",trigger="policy"} 0
broadway_batches_total{batcher="store",pipeline="p",trigger="pressure"} 0
broadway_batches_total{batcher="store",pipeline="p",trigger="size"} 1
broadway_batches_total{batcher="store",pipeline="p",trigger="timeout"} 0
# HELP broadway_fetch_errors_total Fetches that failed; the end of a source is no error.
# TYPE broadway_fetch_errors_total counter
broadway_fetch_errors_total{pipeline="p",producer="posts"} 0
# HELP broadway_fetched_bytes_total Bytes of the messages that producers returned.
# TYPE broadway_fetched_bytes_total counter
broadway_fetched_bytes_total{pipeline="p",producer="posts"} 730
# HELP broadway_fetched_messages_total Messages that producers returned.
# TYPE broadway_fetched_messages_total counter
broadway_fetched_messages_total{pipeline="p",producer="posts"} 10
# HELP broadway_handled_messages_total Handlings by processors, retries included.
# TYPE broadway_handled_messages_total counter
broadway_handled_messages_total{pipeline="p",result="failed"} 2
broadway_handled_messages_total{pipeline="p",result="succeeded"} 8
# HELP broadway_reported_messages_total Members of reported batches, retries included.
# TYPE broadway_reported_messages_total counter
broadway_reported_messages_total{batcher="store",pipeline="p",result="failed"} 1
broadway_reported_messages_total{batcher="store",pipeline="p",result="succeeded"} 7
# HELP broadway_retries_total Messages that were parked for another attempt, by the stage that failed.
# TYPE broadway_retries_total counter
broadway_retries_total{pipeline="p",stage="processor"} 1
broadway_retries_total{pipeline="p",stage="store"} 2
# HELP broadway_settle_errors_total Groups of messages that could not be settled and were released.
# TYPE broadway_settle_errors_total counter
broadway_settle_errors_total{pipeline="p"} 1
# HELP broadway_settled_messages_total Messages that left the pipeline, by outcome.
# TYPE broadway_settled_messages_total counter
broadway_settled_messages_total{outcome="dead_lettered",pipeline="p"} 2
broadway_settled_messages_total{outcome="failed",pipeline="p"} 1
broadway_settled_messages_total{outcome="released",pipeline="p"} 8
broadway_settled_messages_total{outcome="stale",pipeline="p"} 4
broadway_settled_messages_total{outcome="succeeded",pipeline="p"} 7
`),
		"broadway_batches_total", "broadway_fetch_errors_total", "broadway_fetched_bytes_total", "broadway_fetched_messages_total",
		"broadway_handled_messages_total", "broadway_reported_messages_total", "broadway_retries_total",
		"broadway_settle_errors_total", "broadway_settled_messages_total"))
}

func TestTheEndOfASourceIsNoFetchError(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		count float64
	}{
		"done":            {io.EOF, 0},
		"stopped":         {fmt.Errorf("fetch: %w", context.Canceled), 0},
		"demand too low":  {broadway.NeedBytes(1 << 20), 0},
		"broker is away":  {errors.New("connection refused"), 1},
		"own time is out": {context.DeadlineExceeded, 1},
	} {
		t.Run(name, func(t *testing.T) {
			m, registry := newMetrics(t, metrics.Options{})
			m.Observer().Fetched(broadway.FetchEvent{Pipeline: "p", Producer: "posts", Err: c.err})
			require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(fmt.Sprintf(`
# HELP broadway_fetch_errors_total Fetches that failed; the end of a source is no error.
# TYPE broadway_fetch_errors_total counter
broadway_fetch_errors_total{pipeline="p",producer="posts"} %v
`, c.count)), "broadway_fetch_errors_total"))
		})
	}
}

// histogramOf is the one histogram called name.
func histogramOf(t require.TestingT, gatherer prometheus.Gatherer, name string) *dto.Histogram {
	families, err := gatherer.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			require.Len(t, f.Metric, 1)
			return f.Metric[0].Histogram
		}
	}
	require.Fail(t, "no such histogram", name)
	return nil
}

// A visit of n messages must look like n observations of its mean in a
// histogram of the client library.
func TestVisitsWeighByTheirMessages(t *testing.T) {
	bounds := []float64{0.001, 0.01, 0.1, 1, 10}
	rapid.Check(t, func(t *rapid.T) {
		registry := prometheus.NewPedanticRegistry()
		m, err := metrics.New(registry, metrics.Options{DurationBuckets: bounds})
		require.NoError(t, err)
		want := prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "reference", Name: "seconds", Buckets: bounds, NativeHistogramBucketFactor: 1.1,
		})
		registry.MustRegister(want)
		for range rapid.IntRange(1, 30).Draw(t, "visits") {
			n := rapid.IntRange(1, 20).Draw(t, "messages")
			d := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "mean")) * time.Duration(n)
			if rapid.Bool().Draw(t, "short") {
				d %= time.Millisecond
			}
			failed := rapid.IntRange(0, n).Draw(t, "failed")
			m.Observer().Handled(broadway.HandleEvent{Pipeline: "p", Succeeded: n - failed, Failed: failed, Duration: d})
			for range n {
				want.Observe(d.Seconds() / float64(n))
			}
		}
		got, expected := histogramOf(t, registry, "broadway_handle_duration_seconds"), histogramOf(t, registry, "reference_seconds")
		require.InEpsilon(t, 1+expected.GetSampleSum(), 1+got.GetSampleSum(), 1e-9)
		got.SampleSum, got.CreatedTimestamp = expected.SampleSum, expected.CreatedTimestamp
		require.True(t, proto.Equal(expected, got), "got  %v\nwant %v", got, expected)
	})
}

func TestDurationsBeyondTheScaleAreKept(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{DurationBuckets: []float64{1}})
	o := m.Observer()
	o.Handled(broadway.HandleEvent{Pipeline: "p", Succeeded: 1000, Duration: 1})         // a thousandth of a nanosecond each
	o.Handled(broadway.HandleEvent{Pipeline: "p", Succeeded: 1, Duration: 1 << 62})      // 146 years
	o.Handled(broadway.HandleEvent{Pipeline: "p", Succeeded: 1, Duration: -time.Second}) // a clock that ran backwards
	o.Handled(broadway.HandleEvent{Pipeline: "p", Duration: time.Second})                // a visit that found nothing
	o.Reported(broadway.ReportEvent{Pipeline: "p", Batcher: "b", Messages: 1, Duration: -time.Second})
	h := histogramOf(t, registry, "broadway_handle_duration_seconds")
	require.EqualValues(t, 1002, h.GetSampleCount())
	require.EqualValues(t, 1001, h.Bucket[0].GetCumulativeCount())
	require.EqualValues(t, 0, histogramOf(t, registry, "broadway_report_duration_seconds").GetSampleSum(), "a duration is never negative")
}

func TestHistogramsHaveClassicAndNativeBuckets(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{})
	m.Observer().Handled(broadway.HandleEvent{Pipeline: "p", Succeeded: 1, Duration: time.Second})
	m.Observer().Reported(broadway.ReportEvent{Pipeline: "p", Batcher: "b", Messages: 1, Duration: time.Second})
	for _, name := range []string{"handle_duration_seconds", "report_duration_seconds", "batch_messages"} {
		h := histogramOf(t, registry, "broadway_"+name)
		require.NotEmpty(t, h.Bucket, name)
		require.EqualValues(t, 3, h.GetSchema(), name)
		require.NotEmpty(t, h.PositiveSpan, name)
	}
}

// Scrapes while workers tell of visits: each picture must add up, which
// Gather checks itself, and the last must have all.
func TestScrapesDuringVisitsAddUp(t *testing.T) {
	const workers, visits, messages = 4, 2000, 3
	m, registry := newMetrics(t, metrics.Options{})
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range visits {
				m.Observer().Handled(broadway.HandleEvent{Pipeline: fmt.Sprint("p", i%2), Succeeded: messages, Duration: time.Duration(w*i) * time.Microsecond})
			}
		})
	}
	for range 50 {
		families, err := registry.Gather()
		require.NoError(t, err)
		for _, f := range families {
			for _, metric := range f.Metric {
				if h := metric.GetHistogram(); len(h.GetBucket()) > 0 {
					require.LessOrEqual(t, h.Bucket[len(h.Bucket)-1].GetCumulativeCount(), h.GetSampleCount())
				}
			}
		}
	}
	wg.Wait()
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(fmt.Sprintf(`
# HELP broadway_handled_messages_total Handlings by processors, retries included.
# TYPE broadway_handled_messages_total counter
broadway_handled_messages_total{pipeline="p0",result="failed"} 0
broadway_handled_messages_total{pipeline="p0",result="succeeded"} %[1]d
broadway_handled_messages_total{pipeline="p1",result="failed"} 0
broadway_handled_messages_total{pipeline="p1",result="succeeded"} %[1]d
`, workers*visits*messages/2)), "broadway_handled_messages_total"))
}

func TestNamesThatNoLabelCanHold(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{})
	for _, name := range []string{"a\xff", "a\xfe", "", "pipeline"} {
		m.Observer().Fetched(broadway.FetchEvent{Pipeline: name, Producer: name, Messages: 1})
		m.Observer().Handled(broadway.HandleEvent{Pipeline: name, Succeeded: 1, Duration: 1})
		m.Observer().Reported(broadway.ReportEvent{Pipeline: name, Batcher: name, Messages: 1, Trigger: 99})
		require.NoError(t, m.Watch(&still{broadway.Stats{Name: name + "!", Producers: []broadway.ProducerStats{{Name: name}}}}))
	}
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "broadway_handle_duration_seconds" {
			require.Len(t, f.Metric, 3+4, "escaped names stay different; no name is the default name; and four that are watched")
		}
	}
}

func TestRegisteringTwiceIsAnError(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	_, err := metrics.New(registry, metrics.Options{})
	require.NoError(t, err)
	_, err = metrics.New(registry, metrics.Options{})
	require.ErrorAs(t, err, new(prometheus.AlreadyRegisteredError))
	_, err = metrics.New(registry, metrics.Options{Namespace: "second"})
	require.NoError(t, err, "another namespace is free")
}

func TestOptionsAreChecked(t *testing.T) {
	_, err := metrics.New(prometheus.NewPedanticRegistry(), metrics.Options{
		DurationBuckets: []float64{1, 1}, SizeBuckets: []float64{2, 1}, MaxLagSeries: -1,
	})
	require.ErrorContains(t, err, "DurationBuckets")
	require.ErrorContains(t, err, "SizeBuckets")
	require.ErrorContains(t, err, "MaxLagSeries")
	registry := prometheus.NewPedanticRegistry()
	_, err = metrics.New(registry, metrics.Options{ConstLabels: prometheus.Labels{"pipeline": "twice"}})
	require.Error(t, err, "a label of ours cannot be a constant one")
}
