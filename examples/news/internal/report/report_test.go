package report_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/examples/news/internal/post"
	"github.com/gobroadway/gobroadway/examples/news/internal/report"
)

// table keeps rows as a database does: the first one stays.
type table struct {
	rows []post.Publication
	fail error
}

func (t *table) Report(_ context.Context, list []post.Publication) (fresh []post.Publication, err error) {
	if t.fail != nil {
		return nil, t.fail
	}
	for _, p := range list {
		if !slices.ContainsFunc(t.rows, func(r post.Publication) bool { return r.Post == p.Post && r.Platform == p.Platform }) {
			t.rows, fresh = append(t.rows, p), append(fresh, p)
		}
	}
	return fresh, nil
}

func message(t *testing.T, id string, value any) *broadway.Message {
	t.Helper()
	payload, err := post.Post{ID: id}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	m := broadway.NewMessage(broadway.NewAckRef(nil, nil, 0), 1, payload)
	m.Value = value
	return m
}

func publications(id string) []post.Publication {
	return []post.Publication{
		{Post: id, Platform: "site", Format: "html", Outcome: post.Published, Attempts: 1, Latency: time.Millisecond},
		{Post: id, Platform: "webhook", Format: "markdown", Outcome: post.GivenUp, Attempts: 6, Latency: time.Second},
	}
}

func reporter(t *testing.T, tab *table, settled func(context.Context, ...string) error) (*report.Reporter, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	r, err := report.New(tab, reg, settled)
	if err != nil {
		t.Fatal(err)
	}
	return r, reg
}

func TestABatchBecomesRowsAndMetrics(t *testing.T) {
	var settled []string
	tab := &table{}
	r, reg := reporter(t, tab, func(_ context.Context, ids ...string) error {
		if len(tab.rows) == 0 {
			t.Error("settled before the rows were there")
		}
		settled = append(settled, ids...)
		return nil
	})
	b := &broadway.Batch{Messages: []*broadway.Message{message(t, "1", publications("1")), message(t, "2", publications("2"))}}
	for range 2 { // a second report of the same is none
		if err := r.Handle(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if len(tab.rows) != 4 || !slices.Equal(settled, []string{"1", "2", "1", "2"}) {
		t.Errorf("%d rows, settled %v", len(tab.rows), settled)
	}
	want := `
# HELP news_publication_attempts_total Calls of a platform that the written rows took.
# TYPE news_publication_attempts_total counter
news_publication_attempts_total{platform="site"} 2
news_publication_attempts_total{platform="webhook"} 12
# HELP news_publications_total Rows written, by platform, format and outcome.
# TYPE news_publications_total counter
news_publications_total{format="html",outcome="published",platform="site"} 2
news_publications_total{format="markdown",outcome="given_up",platform="webhook"} 2
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "news_publications_total", "news_publication_attempts_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(reg, "news_publication_seconds"); n != 2 || err != nil {
		t.Error(n, err)
	}
	if problems, err := testutil.GatherAndLint(reg); len(problems) > 0 || err != nil {
		t.Error(problems, err)
	}
}

func TestAFailedWriteFailsTheBatch(t *testing.T) {
	tab := &table{fail: errors.New("disk full")}
	r, _ := reporter(t, tab, func(context.Context, ...string) error {
		t.Error("settled without rows")
		return nil
	})
	b := &broadway.Batch{Messages: []*broadway.Message{message(t, "1", publications("1"))}}
	if err := r.Handle(t.Context(), b); !errors.Is(err, tab.fail) {
		t.Error(err)
	}
}

func TestAMessageWithoutPublicationsIsNoReport(t *testing.T) {
	r, _ := reporter(t, &table{}, nil)
	if err := r.Handle(t.Context(), &broadway.Batch{Messages: []*broadway.Message{message(t, "1", nil)}}); err == nil {
		t.Error("it was reported")
	}
	if err := r.Handle(t.Context(), &broadway.Batch{Messages: []*broadway.Message{message(t, "1", []post.Publication{})}}); err != nil {
		t.Error(err)
	}
}

// collector is where messages go that hold no post.
type collector struct{ got []*broadway.Message }

func (c *collector) DeadLetter(_ context.Context, messages []*broadway.Message) error {
	c.got = append(c.got, messages...)
	return nil
}

func TestAPostThatFailedForGoodIsInTheReport(t *testing.T) {
	var settled []string
	tab := &table{}
	r, _ := reporter(t, tab, func(_ context.Context, ids ...string) error {
		settled = append(settled, ids...)
		return nil
	})
	others := &collector{}
	d := &report.DeadLetters{
		Reporter: r, Others: others,
		GiveUp: func(_ context.Context, id string, _ error) ([]post.Publication, error) {
			return []post.Publication{
				{Post: id, Platform: "site", Format: "html", Outcome: post.Published},
				{Post: id, Platform: "webhook", Format: "markdown", Outcome: post.GivenUp},
			}, nil
		},
	}
	stranger := broadway.NewMessage(broadway.NewAckRef(nil, nil, 0), 1, []byte("no post"))
	if err := d.DeadLetter(t.Context(), []*broadway.Message{message(t, "7", nil), stranger}); err != nil {
		t.Fatal(err)
	}
	if len(tab.rows) != 2 || tab.rows[1].Outcome != post.GivenUp || !slices.Equal(settled, []string{"7"}) || len(others.got) != 1 {
		t.Errorf("%+v, settled %v, others %d", tab.rows, settled, len(others.got))
	}
	d.Others = nil
	if err := d.DeadLetter(t.Context(), []*broadway.Message{stranger}); err == nil {
		t.Error("a stranger vanished")
	}
	tab.fail = errors.New("disk full")
	if err := d.DeadLetter(t.Context(), []*broadway.Message{message(t, "8", nil)}); !errors.Is(err, tab.fail) {
		t.Error(err)
	}
}
