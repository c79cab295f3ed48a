// Package report is part C: it writes one row for each post and platform, in
// batches, and exports what it wrote to Prometheus.
//
//	news_publications_total{platform,format,outcome}   rows written
//	news_publication_attempts_total{platform}          calls that they took
//	news_publication_seconds{platform}                 from the first call to the outcome
package report

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/examples/news/internal/post"
)

// Table is where the rows go.
type Table interface {
	// Report writes all rows or none, and returns those that were not there.
	Report(ctx context.Context, list []post.Publication) (fresh []post.Publication, err error)
}

// Reporter is part C.
type Reporter struct {
	table   Table
	settled func(ctx context.Context, ids ...string) error

	total    *prometheus.CounterVec
	attempts *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// New makes a reporter and registers its metrics. settled is told of posts whose
// rows are written, before they are acknowledged; nil tells nobody.
func New(t Table, registerer prometheus.Registerer, settled func(ctx context.Context, ids ...string) error) (*Reporter, error) {
	if settled == nil {
		settled = func(context.Context, ...string) error { return nil }
	}
	r := &Reporter{
		table: t, settled: settled,
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "news", Name: "publications_total", Help: "Rows written, by platform, format and outcome.",
		}, []string{"platform", "format", "outcome"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "news", Name: "publication_attempts_total", Help: "Calls of a platform that the written rows took.",
		}, []string{"platform"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "news", Name: "publication_seconds", Help: "Time from the first call of a platform to the outcome.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}, []string{"platform"}),
	}
	for _, c := range []prometheus.Collector{r.total, r.attempts, r.seconds} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("report: %w", err)
		}
	}
	return r, nil
}

// Handle is C as a [broadway.Reporter]: the messages' values are what B left, and
// are written in one transaction.
func (r *Reporter) Handle(ctx context.Context, b *broadway.Batch) error {
	var list []post.Publication
	var ids []string
	for _, m := range b.Messages {
		some, is := m.Value.([]post.Publication)
		if !is {
			return broadway.Reject(fmt.Errorf("report: message %s holds a %T", m.ID(), m.Value))
		}
		list = append(list, some...)
		if len(some) > 0 {
			ids = append(ids, some[0].Post)
		}
	}
	return broadway.Unavailable(r.Write(ctx, list, ids)) // a database that is down is no message's fault
}

// Write writes rows, and tells that posts are settled.
func (r *Reporter) Write(ctx context.Context, list []post.Publication, ids []string) error {
	fresh, err := r.table.Report(ctx, list)
	if err != nil {
		return err
	}
	for _, p := range fresh {
		r.total.WithLabelValues(p.Platform, p.Format, p.Outcome).Inc()
		r.attempts.WithLabelValues(p.Platform).Add(float64(p.Attempts))
		r.seconds.WithLabelValues(p.Platform).Observe(p.Latency.Seconds())
	}
	return r.settled(ctx, ids...)
}

// DeadLetters reports posts that B failed for good: what is not published is in
// the report too.
type DeadLetters struct {
	Reporter *Reporter
	// GiveUp gives up a post wherever it has no outcome yet, and returns all of
	// its outcomes.
	GiveUp func(ctx context.Context, id string, reason error) ([]post.Publication, error)
	// Others takes messages that hold no post. Nil refuses them.
	Others broadway.DeadLetterer
}

// DeadLetter returns nil once every row is there.
func (d *DeadLetters) DeadLetter(ctx context.Context, messages []*broadway.Message) error {
	var list []post.Publication
	var ids []string
	var others []*broadway.Message
	for _, m := range messages {
		p, err := post.Decode(m.Payload)
		if err != nil {
			others = append(others, m)
			continue
		}
		outcomes, err := d.GiveUp(ctx, p.ID, m.Err())
		if err != nil {
			return err
		}
		list, ids = append(list, outcomes...), append(ids, p.ID)
	}
	if len(ids) > 0 {
		if err := d.Reporter.Write(ctx, list, ids); err != nil {
			return err
		}
	}
	if len(others) == 0 {
		return nil
	}
	if d.Others == nil {
		return errors.New("report: a message that holds no post, and nowhere to put it")
	}
	return d.Others.DeadLetter(ctx, others)
}
