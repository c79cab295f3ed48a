package broadwaytest

import (
	"slices"
	"testing"

	"github.com/gobroadway/gobroadway/broadway"
)

// RunMessage sends one message through a pipeline and returns what became of it.
// cfg is a pipeline's own Config, with its handlers and reporters; its Producers
// are replaced by a [Producer] that ends after the message, which closes its
// batch at once, whatever item says.
func RunMessage(t testing.TB, cfg broadway.Config, item Item) Settled {
	t.Helper()
	item.BatchMode = broadway.Flush
	return RunBatch(t, cfg, item)[0]
}

// RunBatch sends items through a pipeline, as RunMessage does, and returns what
// became of each, in the order of items. They come together, and the source ends
// after them, so that no batch waits for its timeout.
//
// A message that fails waits for its next attempt as long as cfg.Failure.Backoff says:
// within testing/synctest that takes no time.
//
// A pipeline that cannot be made, or whose Run fails, ends the test.
func RunBatch(t testing.TB, cfg broadway.Config, items ...Item) []Settled {
	t.Helper()
	producer := NewProducer(broadway.Traits{})
	producer.PushItems(items...)
	producer.End()
	cfg.Producers = []broadway.Producer{producer}
	p, err := broadway.New(cfg)
	if err != nil {
		t.Fatalf("no pipeline can be made of the Config: %v", err)
	}
	if err := p.Run(t.Context()); err != nil {
		t.Fatalf("Run: %v", err)
	}
	settled := producer.Acks.Settled()
	slices.SortFunc(settled, func(a, b Settled) int { return int(a.Seq - b.Seq) })
	if len(settled) != len(items) {
		t.Fatalf("%d of %d messages were settled", len(settled), len(items))
	}
	return settled
}
