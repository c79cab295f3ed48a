package metrics_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/metrics"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// A program registers the metrics with a registry of its own choice, gives the
// observer to its pipelines, and watches them.
func Example() {
	registry := prometheus.NewRegistry()
	m, err := metrics.New(registry, metrics.Options{})
	if err != nil {
		log.Fatal(err)
	}
	p, err := broadway.New(broadway.Config{
		Name:      "greetings",
		Producers: []broadway.Producer{memory.New(memory.Config{Payloads: [][]byte{[]byte("hello"), []byte("goodbye")}})},
		Processor: broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error { return nil }},
		Observer:  m.Observer(),
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := m.Watch(p); err != nil {
		log.Fatal(err)
	}
	if err := p.Run(context.Background()); err != nil {
		log.Fatal(err)
	}

	// A service would call metrics.Serve with this handler beside Run.
	handler := metrics.Handler(registry, p)
	page := httptest.NewRecorder()
	handler.ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(page.Body.String()) {
		if strings.HasPrefix(line, "broadway_settled_messages_total") {
			fmt.Print(line)
		}
	}
	// Output:
	// broadway_settled_messages_total{outcome="dead_lettered",pipeline="greetings"} 0
	// broadway_settled_messages_total{outcome="failed",pipeline="greetings"} 0
	// broadway_settled_messages_total{outcome="released",pipeline="greetings"} 0
	// broadway_settled_messages_total{outcome="stale",pipeline="greetings"} 0
	// broadway_settled_messages_total{outcome="succeeded",pipeline="greetings"} 2
}
