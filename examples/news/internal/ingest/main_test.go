package ingest_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gobroadway/gobroadway/examples/news/internal/ingest"
	"github.com/gobroadway/gobroadway/examples/news/internal/standin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var unlimited = standin.Rate{Calls: 1 << 30, Window: time.Hour}

// serve runs a world until the test ends.
func serve(t *testing.T, cfg standin.Config) *standin.World {
	t.Helper()
	w, err := standin.Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return w
}

func timelines(t *testing.T, cfg ingest.Config) *ingest.Timelines {
	t.Helper()
	if cfg.Hashtags == nil {
		cfg.Hashtags = standin.Hashtags()
	}
	tl, err := ingest.NewTimelines(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tl
}
