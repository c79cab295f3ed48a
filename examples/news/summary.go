package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/examples/news/internal/audit"
	"github.com/gobroadway/gobroadway/examples/news/internal/post"
	"github.com/gobroadway/gobroadway/examples/news/internal/render"
)

// summary is what is said in the end.
type summary struct {
	Posts       int            `json:"posts"`
	Renderings  map[string]int `json:"renderings"`
	Published   map[string]int `json:"published"`
	Retries     int            `json:"retries"`
	DeadLetters int            `json:"dead_letters"`
	Duplicates  int            `json:"duplicates"`
	Lost        int            `json:"lost"`
	Rows        int            `json:"rows"`
	Queues      []queueUse     `json:"queues"`
	Calls       int            `json:"calls"`
	Queue       string         `json:"queue"`
	Database    string         `json:"database"`
	Site        string         `json:"site"`
	Seconds     float64        `json:"seconds"`
	// Topic is the topic and group, or the queue, of this database.
	Topic       string `json:"topic,omitempty"`
	Interrupted bool   `json:"interrupted,omitempty"`

	index string
}

// queueUse is how full a queue got, and the most that it could hold.
type queueUse struct {
	Name    string `json:"name"`
	Highest int    `json:"highest"`
	Bound   int    `json:"bound"`
}

// pipelineQueues reads how full the queues of a pipeline got.
func pipelineQueues(p *broadway.Pipeline) []queueUse {
	st := p.Stats()
	list := []queueUse{{Name: st.Name + ": unsettled", Highest: st.HighestUnsettled, Bound: st.MaxUnsettled}}
	for _, b := range st.Batchers {
		list = append(list, queueUse{Name: st.Name + ": batches", Highest: b.HighestHeld, Bound: b.Bound})
	}
	return list
}

// audit asks everybody but the pipelines.
func (s *system) audit(ctx context.Context, interrupted bool) (summary, error) {
	rows, err := s.store.Publications(ctx)
	if err != nil {
		return summary{}, err
	}
	pos, err := s.store.LoadCursor(ctx, cursorName)
	if err != nil {
		return summary{}, err
	}
	ledger := s.world.Ledger()
	e := audit.Evidence{
		Posts: s.expected(ledger.Served(), interrupted, pos.After), Rows: rows,
		Platforms: []string{s.site.Name(), "mastodon", "webhook"}, Site: s.site.Name(),
		Renderings: make(map[string][]string),
	}
	for _, one := range ledger.Effects() {
		e.Effects = append(e.Effects, audit.Effect{Platform: one.Platform, Post: one.Post})
	}
	for _, format := range render.Formats() {
		if e.Renderings[format], err = s.site.Published(format); err != nil {
			return summary{}, err
		}
	}
	for _, id := range e.Renderings[s.site.Format()] {
		e.Effects = append(e.Effects, audit.Effect{Platform: s.site.Name(), Post: id})
	}
	return s.sum(audit.Judge(e), len(e.Posts), interrupted), nil
}

// expected lists the posts that should have gone through, by the source's own
// ledger: the oldest -posts of those that it has handed out. After an interrupt
// it is those that the cursor has passed: the others come with the next run.
func (s *system) expected(served []string, interrupted bool, after string) []string {
	if interrupted {
		return slices.DeleteFunc(served, func(id string) bool { return post.CompareIDs(id, after) > 0 })
	}
	n := s.opts.posts
	if s.served == 0 {
		n -= int(s.start.Settled) // of a run whose ledger is not here
	}
	return served[:max(min(n, len(served)), 0)]
}

func (s *system) sum(v audit.Verdict, posts int, interrupted bool) summary {
	out := summary{
		Posts: posts, Renderings: v.Renderings, Published: v.Published, Retries: v.Retries, DeadLetters: v.GivenUp,
		Duplicates: v.Duplicates, Lost: v.Lost, Rows: v.Rows, Calls: s.world.Ledger().Counts().Calls,
		Queue: s.opts.queue, Database: s.store.Name(), Site: s.site.Dir(), Interrupted: interrupted, index: s.site.Index(),
	}
	if s.opts.queue != queueNone {
		out.Topic = "news-" + s.name
	}
	return out
}

// print says it in words, or in one line of JSON.
func (s summary) print(out io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(out).Encode(s)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, %s, in %.1f s", plural(s.Posts, "post"), plural(s.Calls, "API call"), s.Seconds)
	if s.Interrupted {
		b.WriteString(" (interrupted, and drained: the same -dir continues)")
	}
	fmt.Fprintf(&b, "\n  rendered    %s\n  published   %s\n", counts(s.Renderings), counts(s.Published))
	fmt.Fprintf(&b, "  reported    %s in %s\n", plural(s.Rows, "row"), s.Database)
	fmt.Fprintf(&b, "  went wrong  %s, %d given up\n", plural(s.Retries, "call was repeated", "calls were repeated"), s.DeadLetters)
	fmt.Fprintf(&b, "  audit       %d lost, %d published twice (by the ledgers of source and platforms, the files and the database)\n", s.Lost, s.Duplicates)
	for _, q := range s.Queues {
		fmt.Fprintf(&b, "  queue       %-24s %5d at most, of %d\n", q.Name, q.Highest, q.Bound)
	}
	fmt.Fprintf(&b, "\n%s\n", fileURL(s.index))
	_, err := io.WriteString(out, b.String())
	return err
}

func counts(m map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, m[name]))
	}
	return strings.Join(parts, ", ")
}

// plural is "1 post" or "2 posts".
func plural(n int, one string, many ...string) string {
	switch {
	case n == 1:
		return "1 " + one
	case len(many) > 0:
		return fmt.Sprintf("%d %s", n, many[0])
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// fileURL is what a browser opens.
func fileURL(path string) string {
	slashed := filepath.ToSlash(path)
	if !strings.HasPrefix(slashed, "/") {
		slashed = "/" + slashed
	}
	u := url.URL{Scheme: "file", Path: slashed}
	return u.String()
}
