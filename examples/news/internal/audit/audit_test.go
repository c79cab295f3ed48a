package audit_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gobroadway/gobroadway/examples/news/internal/audit"
	"github.com/gobroadway/gobroadway/examples/news/internal/post"
)

func platforms() []string { return []string{"site", "mastodon", "webhook"} }

// perfect is the evidence of n posts that went through without a hitch.
func perfect(n int) audit.Evidence {
	e := audit.Evidence{Platforms: platforms(), Site: "site", Renderings: map[string][]string{"html": {}, "pdf": {}}}
	for i := range n {
		id := fmt.Sprint(100 + i)
		e.Posts = append(e.Posts, id)
		for _, p := range platforms() {
			e.Effects = append(e.Effects, audit.Effect{Platform: p, Post: id})
			e.Rows = append(e.Rows, post.Publication{Post: id, Platform: p, Outcome: post.Published, Attempts: 1})
		}
		for f := range e.Renderings {
			e.Renderings[f] = append(e.Renderings[f], id)
		}
	}
	return e
}

func TestNothingIsLostWhenAllIsThere(t *testing.T) {
	want := audit.Verdict{
		Published:  map[string]int{"site": 5, "mastodon": 5, "webhook": 5},
		Renderings: map[string]int{"html": 5, "pdf": 5}, Rows: 15,
	}
	if diff := cmp.Diff(want, audit.Judge(perfect(5))); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsMissingIsFound(t *testing.T) {
	for name, spoil := range map[string]func(*audit.Evidence){
		"a row":          func(e *audit.Evidence) { e.Rows = e.Rows[1:] },
		"an effect":      func(e *audit.Evidence) { e.Effects = e.Effects[1:] },
		"a rendering":    func(e *audit.Evidence) { e.Renderings["pdf"] = e.Renderings["pdf"][1:] },
		"every trace":    func(e *audit.Evidence) { e.Rows, e.Effects = e.Rows[3:], e.Effects[3:] },
		"all renderings": func(e *audit.Evidence) { e.Renderings["html"] = nil; e.Posts = e.Posts[:1] },
		"an outcome":     func(e *audit.Evidence) { e.Rows[2].Outcome = "" },
	} {
		e := perfect(5)
		spoil(&e)
		if v := audit.Judge(e); v.Lost != 1 || len(v.LostPosts) != 1 || v.LostPosts[0] != "100" || v.Duplicates != 0 {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestWhatIsThereTwiceIsFound(t *testing.T) {
	e := perfect(5)
	e.Effects = append(e.Effects, e.Effects[1], e.Effects[1], audit.Effect{Platform: "site", Post: "stranger"}, audit.Effect{Platform: "webhook"})
	e.Rows = append(e.Rows, e.Rows[4])
	if v := audit.Judge(e); v.Duplicates != 3 || v.Lost != 0 || v.Strangers != 2 || v.Published["mastodon"] != 5 {
		t.Errorf("%+v", v)
	}
}

func TestGivenUpIsNotLost(t *testing.T) {
	e := perfect(5)
	e.Effects = e.Effects[:len(e.Effects)-1]
	last := &e.Rows[len(e.Rows)-1]
	last.Outcome, last.Attempts = post.GivenUp, 6
	if v := audit.Judge(e); v.Lost != 0 || v.GivenUp != 1 || v.Retries != 5 || v.Published["webhook"] != 4 {
		t.Errorf("%+v", v)
	}
	// A post that could not be rendered has rows, and nothing else.
	e = perfect(1)
	e.Effects, e.Renderings = nil, map[string][]string{"html": nil, "pdf": nil}
	for i := range e.Rows {
		e.Rows[i].Outcome, e.Rows[i].Attempts = post.GivenUp, 0
	}
	if v := audit.Judge(e); v.Lost != 0 || v.GivenUp != 3 || v.Retries != 0 {
		t.Errorf("%+v", v)
	}
}

func TestEveryDroppedPostIsCounted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := perfect(rapid.IntRange(1, 60).Draw(t, "posts"))
		dropped := map[string]bool{}
		for _, id := range e.Posts {
			if rapid.IntRange(0, 9).Draw(t, "drop") == 0 {
				dropped[id] = true
			}
		}
		var kept audit.Evidence = e
		kept.Effects, kept.Rows = nil, nil
		for i, r := range e.Rows {
			if !dropped[r.Post] {
				kept.Rows, kept.Effects = append(kept.Rows, r), append(kept.Effects, e.Effects[i])
			}
		}
		if v := audit.Judge(kept); v.Lost != len(dropped) || v.Rows != 3*(len(e.Posts)-len(dropped)) {
			t.Errorf("%d dropped: %+v", len(dropped), v)
		}
	})
}
