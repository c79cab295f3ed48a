package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/examples/news/internal/ingest"
	"github.com/gobroadway/gobroadway/examples/news/internal/publish"
	"github.com/gobroadway/gobroadway/examples/news/internal/render"
	"github.com/gobroadway/gobroadway/examples/news/internal/report"
	"github.com/gobroadway/gobroadway/examples/news/internal/standin"
	"github.com/gobroadway/gobroadway/examples/news/internal/store"
	"github.com/gobroadway/gobroadway/metrics"
)

// system is everything that the three parts need.
type system struct {
	opts   options
	screen io.Writer
	logger *slog.Logger

	world    *standin.World
	store    *store.Store
	cursor   *ingest.Cursor
	site     *publish.Site
	render   *render.Renderer
	client   *http.Client
	metrics  *metrics.Metrics
	registry *prometheus.Registry
	name     string // of this database: what its topic or queue is named after

	start  ingest.Position // where the cursor stood
	served int             // posts that the ledger had before

	republisher *publish.Republisher
	reporter    *report.Reporter

	services sync.WaitGroup // the stand-ins
	stop     context.CancelFunc
	failed   chan error // what ended the services
}

// cursorName is what the cursor of the posts API is kept under.
const cursorName = "posts"

// open opens everything. ctx bounds the services, until close.
func open(ctx context.Context, o options, screen io.Writer) (*system, error) {
	s := &system{opts: o, screen: screen, failed: make(chan error, 1)}
	s.logger = slog.New(slog.NewTextHandler(screen, &slog.HandlerOptions{Level: slog.LevelError}))
	ctx, s.stop = context.WithCancel(ctx)
	if err := s.openAll(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.services.Go(func() { s.failed <- s.world.Serve(ctx) })
	return s, nil
}

func (s *system) openAll(ctx context.Context) error {
	database, site, ledger, err := s.opts.places()
	if err != nil {
		return err
	}
	if s.store, err = store.Open(ctx, database); err != nil {
		return err
	}
	if s.name, err = s.store.Identity(ctx); err != nil {
		return err
	}
	if s.cursor, err = ingest.LoadCursor(ctx, s.store, cursorName); err != nil {
		return err
	}
	s.start = s.cursor.Position()
	if s.site, err = publish.OpenSite(site); err != nil {
		return err
	}
	wrong, _ := faults(s.opts.faults)
	s.world, err = standin.Listen(standin.Config{
		Seed: s.opts.seed, Ledger: ledger, Faults: wrong,
		Latency: standin.Latency{Min: 2 * time.Millisecond, Max: 20 * time.Millisecond},
		Rate:    standin.Rate{Calls: 30, Window: time.Second},
	})
	if err != nil {
		return err
	}
	s.served = len(s.world.Ledger().Served())
	return s.openParts()
}

func (s *system) openParts() (err error) {
	if s.render, err = render.New(); err != nil {
		return err
	}
	s.registry = prometheus.NewRegistry()
	if s.metrics, err = metrics.New(s.registry, metrics.Options{}); err != nil {
		return err
	}
	s.client = publish.NewClient(s.world.Addresses()...)
	s.republisher = publish.New(s.render, s.store, publish.Patience{},
		s.site,
		publish.NewMastodon(s.world.StatusesURL(), s.world.Token(), s.client),
		publish.NewWebhook(s.world.WebhookURL(), s.world.WebhookSecret(), s.client))
	s.reporter, err = report.New(s.store, s.registry, s.settled())
	return err
}

// settled is who is told of posts that have their rows: the cursor, when the
// queue in between forgets.
func (s *system) settled() func(context.Context, ...string) error {
	if s.opts.queue == queueEmbedded {
		return s.cursor.Settle
	}
	return nil
}

// close ends and closes what open opened, or the part of it that there is.
func (s *system) close() error {
	s.stop()
	s.services.Wait()
	var errs []error
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
	if s.site != nil {
		errs = append(errs, s.site.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	select {
	case err := <-s.failed:
		errs = append(errs, err)
	default: // the services never ran
		if s.world != nil {
			errs = append(errs, s.world.Close())
		}
	}
	return errors.Join(errs...)
}

// work runs the pipelines until all posts are through or ctx ends, writes the
// index of the site, and audits.
func (s *system) work(ctx context.Context) (summary, error) {
	f, err := s.flow(ctx)
	if err != nil {
		return summary{}, err
	}
	began := time.Now()
	err = s.watched(ctx, f)
	took := time.Since(began)
	if err := errors.Join(err, f.close()); err != nil {
		return summary{}, err
	}
	if err := s.site.WriteIndex(s.render, standin.Hashtags()); err != nil {
		return summary{}, err
	}
	sum, err := s.audit(context.WithoutCancel(ctx), ctx.Err() != nil)
	sum.Seconds = took.Seconds()
	sum.Queues = f.queues()
	return sum, err
}

// flow is how posts get from A to C.
type flow interface {
	// run returns when all posts are through, or have drained after ctx ended.
	run(ctx context.Context) error
	// pipelines lists them, A's first and C's last.
	pipelines() []*broadway.Pipeline
	// queues says how full they got.
	queues() []queueUse
	close() error
}

func (s *system) flow(ctx context.Context) (flow, error) {
	if s.opts.queue == queueNone {
		return newDirect(s)
	}
	return newQueued(ctx, s)
}

// watched runs f, and beside it what shows and exports how it goes.
func (s *system) watched(ctx context.Context, f flow) error {
	for _, p := range f.pipelines() {
		if err := s.metrics.Watch(p); err != nil {
			return err
		}
	}
	around, stop := context.WithCancel(context.WithoutCancel(ctx))
	var beside sync.WaitGroup
	beside.Go(func() { s.progress(around, f) })
	if s.opts.metrics != "" {
		beside.Go(func() {
			if err := s.serveMetrics(around, f); err != nil {
				fmt.Fprintln(s.screen, "news: metrics:", err)
			}
		})
	}
	err := f.run(ctx)
	stop()
	beside.Wait()
	return err
}

func (s *system) serveMetrics(ctx context.Context, f flow) error {
	var pipelines []metrics.Pipeline
	for _, p := range f.pipelines() {
		pipelines = append(pipelines, p)
	}
	return metrics.Serve(ctx, s.opts.metrics, metrics.Handler(s.registry, pipelines...), metrics.OnListen(func(a net.Addr) {
		fmt.Fprintf(s.screen, "metrics: http://%s/metrics\n", a)
	}))
}
