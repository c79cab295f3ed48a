package metrics_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/metrics"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// value is the sum of the series of a metric that have the labels.
func value(t *testing.T, gatherer prometheus.Gatherer, name string, labels map[string]string) float64 {
	t.Helper()
	families, err := gatherer.Gather()
	require.NoError(t, err)
	total := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, metric := range f.Metric {
			matching := 0
			for _, l := range metric.Label {
				if labels[l.GetName()] == l.GetValue() {
					matching++
				}
			}
			if matching == len(labels) {
				total += metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + float64(metric.GetHistogram().GetSampleCount())
			}
		}
	}
	return total
}

// A pipeline that runs for real, with retries, failures and batches: at rest
// the metrics must balance to the unit.
func TestMetricsOfAPipelineBalance(t *testing.T) {
	const messages, poison = 1000, 10 // every hundredth fails for good
	m, registry := newMetrics(t, metrics.Options{})
	payloads := make([][]byte, messages)
	for i := range payloads {
		payloads[i] = []byte{byte(i), byte(i >> 8)}
	}
	var reported atomic.Int64
	p, err := broadway.New(broadway.Config{
		Name:      "real",
		Producers: []broadway.Producer{memory.New(memory.Config{Payloads: payloads})},
		Processor: broadway.ProcessorConfig{Concurrency: 4, Handler: func(_ context.Context, m *broadway.Message) error {
			if i := int(m.Payload[0]) + int(m.Payload[1])<<8; i%100 == 0 {
				return errors.New("poison")
			}
			return nil
		}},
		Batchers: []broadway.BatcherConfig{{Name: "store", Size: 50, Reporter: func(_ context.Context, b *broadway.Batch) error {
			reported.Add(int64(len(b.Messages)))
			return nil
		}}},
		Failure:  broadway.FailurePolicy{MaxAttempts: 3, Action: broadway.ActionDrop, Backoff: broadway.Backoff{Initial: time.Millisecond}},
		Observer: m.Observer(),
	})
	require.NoError(t, err)
	require.NoError(t, m.Watch(p))
	require.Zero(t, value(t, registry, "broadway_up", nil), "a pipeline that has not run is not up")

	require.NoError(t, p.Run(t.Context()))

	real := map[string]string{"pipeline": "real"}
	at := func(name, label, v string) float64 {
		return value(t, registry, name, map[string]string{"pipeline": "real", label: v})
	}
	require.EqualValues(t, messages, value(t, registry, "broadway_fetched_messages_total", real))
	require.EqualValues(t, 2*messages, value(t, registry, "broadway_fetched_bytes_total", real))
	require.EqualValues(t, messages-poison, at("broadway_settled_messages_total", "outcome", "succeeded"))
	require.EqualValues(t, poison, at("broadway_settled_messages_total", "outcome", "failed"))
	require.EqualValues(t, messages, value(t, registry, "broadway_settled_messages_total", real), "fetched = settled")
	require.EqualValues(t, 2*poison, at("broadway_retries_total", "stage", "processor"))
	require.EqualValues(t, 3*poison, at("broadway_handled_messages_total", "result", "failed"))
	require.EqualValues(t, messages+2*poison, value(t, registry, "broadway_handle_duration_seconds", real), "one observation for each handling")
	require.EqualValues(t, reported.Load(), at("broadway_reported_messages_total", "batcher", "store"))
	require.EqualValues(t, value(t, registry, "broadway_batches_total", real), value(t, registry, "broadway_batch_messages", real))
	require.Zero(t, value(t, registry, "broadway_unsettled_messages", real))
	require.Zero(t, value(t, registry, "broadway_unsettled_bytes", real))
	highest := value(t, registry, "broadway_unsettled_messages_highest", real)
	require.Positive(t, highest)
	require.LessOrEqual(t, highest, value(t, registry, "broadway_unsettled_messages_bound", real))
}

func TestReadyzFollowsThePipeline(t *testing.T) {
	source := memory.New(memory.Config{})
	p, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{source},
		Processor: broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error { return nil }},
	})
	require.NoError(t, err)
	handler := metrics.Handler(prometheus.NewRegistry(), p)
	status := func() int {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
		return w.Code
	}
	require.Equal(t, http.StatusServiceUnavailable, status(), "before Run")

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	require.NoError(t, source.Push(t.Context(), []byte("x")))
	for p.Stats().Succeeded == 0 { // it runs when it has settled
		runtime.Gosched()
	}
	require.Equal(t, http.StatusOK, status(), "while it runs")
	require.NoError(t, p.Pause(t.Context()))
	require.Equal(t, http.StatusOK, status(), "while it is paused")
	cancel()
	wg.Wait()
	require.Equal(t, http.StatusServiceUnavailable, status(), "after Run")
}
