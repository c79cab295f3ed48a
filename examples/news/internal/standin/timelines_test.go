package standin_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/mattn/go-mastodon"

	"github.com/gobroadway/gobroadway/examples/news/internal/standin"
)

type note struct {
	ID      string `json:"id"`
	Content string `json:"content"`
	URL     string `json:"url"`
	Tags    []struct {
		Name string `json:"name"`
	} `json:"tags"`
}

// unlimited is a rate that no test reaches.
var unlimited = standin.Rate{Calls: 1 << 30, Window: time.Hour}

func get(t *testing.T, address string) (*http.Response, []note) {
	t.Helper()
	resp, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var notes []note
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, &notes); err != nil {
			t.Fatal(err)
		}
	}
	return resp, notes
}

// walk reads a whole timeline forward with min_id.
func walk(t *testing.T, w *standin.World, hashtag string) []note {
	t.Helper()
	var all []note
	for at := "0"; ; {
		_, page := get(t, fmt.Sprintf("%s/api/v1/timelines/tag/%s?limit=40&min_id=%s", w.PostsURL(), hashtag, at))
		if len(page) == 0 {
			return all
		}
		slices.Reverse(page)
		all, at = append(all, page...), page[len(page)-1].ID
	}
}

func TestTheCorpusHoldsThousandsOfDistinctPosts(t *testing.T) {
	w := serve(t, standin.Config{Seed: 1, Rate: unlimited})
	contents, under := map[string]bool{}, map[string]int{}
	for _, tag := range standin.Hashtags() {
		for _, n := range walk(t, w, tag) {
			contents[n.Content] = true
			under[n.ID]++
		}
	}
	if len(under) != standin.CorpusSize || len(contents) != standin.CorpusSize || standin.CorpusSize < 6000 {
		t.Errorf("%d distinct ids, %d distinct contents, want %d", len(under), len(contents), standin.CorpusSize)
	}
	several := 0
	for _, n := range under {
		if n > 1 {
			several++
		}
	}
	if several < 500 {
		t.Errorf("only %d posts are under two hashtags or more", several)
	}
	served := w.Ledger().Served()
	if len(served) != len(under) || !slices.IsSortedFunc(served, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	}) {
		t.Errorf("the ledger lists %d served posts", len(served))
	}
}

func TestTheCorpusSpeaksManyScriptsAndIsHostile(t *testing.T) {
	w := serve(t, standin.Config{Seed: 1, Rate: unlimited})
	var text strings.Builder
	for _, n := range walk(t, w, "programming") {
		text.WriteString(n.Content)
	}
	all := text.String()
	for name, table := range map[string]*unicode.RangeTable{
		"Cyrillic": unicode.Cyrillic, "Greek": unicode.Greek, "Han": unicode.Han, "Hiragana": unicode.Hiragana,
		"Hangul": unicode.Hangul, "Arabic": unicode.Arabic, "Hebrew": unicode.Hebrew, "combining": unicode.Mn,
	} {
		if !strings.ContainsFunc(all, func(r rune) bool { return unicode.Is(table, r) }) {
			t.Errorf("no %s", name)
		}
	}
	for _, s := range []string{"źdźbło", "ďábelské", "őszintén", "🎉", "👩\u200d💻", "<script", "onerror=", "javascript:", "data:text/html", "<scr<script>ipt>", "tracker.example"} {
		if !strings.Contains(all, s) {
			t.Errorf("no %s", s)
		}
	}
}

func TestEqualSeedsGiveEqualPosts(t *testing.T) {
	a := walk(t, serve(t, standin.Config{Seed: 7, Posts: 200, Rate: unlimited}), "architecture")
	b := walk(t, serve(t, standin.Config{Seed: 7, Posts: 200, Rate: unlimited}), "architecture")
	c := walk(t, serve(t, standin.Config{Seed: 8, Posts: 200, Rate: unlimited}), "architecture")
	same := func(a, b note) bool { return a.ID == b.ID && a.Content == b.Content }
	if !slices.EqualFunc(a, b, same) {
		t.Error("the same seed gave different posts")
	}
	if slices.EqualFunc(a, c, same) {
		t.Error("another seed gave the same posts")
	}
}

func TestPagingFollowsMastodon(t *testing.T) {
	w := serve(t, standin.Config{Seed: 1, Posts: 300, Rate: unlimited})
	all := walk(t, w, "programming") // oldest first
	base := w.PostsURL() + "/api/v1/timelines/tag/programming?"
	ids := func(notes []note) []string {
		out := []string{}
		for _, n := range notes {
			out = append(out, n.ID)
		}
		return out
	}
	newestFirst := func(from, to int) []string { // of all[from:to]
		out := ids(all[from:to])
		slices.Reverse(out)
		return out
	}
	n := len(all)
	for _, c := range []struct {
		query string
		want  []string
	}{
		{"", newestFirst(n-20, n)},
		{"limit=5", newestFirst(n-5, n)},
		{"limit=400", newestFirst(n-40, n)},
		{"limit=0", newestFirst(n-20, n)},
		{"limit=3&max_id=" + all[10].ID, newestFirst(7, 10)},
		{"max_id=" + all[2].ID, newestFirst(0, 2)},
		{"max_id=" + all[0].ID, []string{}},
		{"limit=3&since_id=" + all[10].ID, newestFirst(n-3, n)},
		{"since_id=" + all[n-3].ID, newestFirst(n-2, n)},
		{"limit=3&min_id=" + all[10].ID, newestFirst(11, 14)},
		{"limit=3&min_id=0", newestFirst(0, 3)},
		{"limit=5&min_id=" + all[10].ID + "&max_id=" + all[13].ID, newestFirst(11, 13)},
		{"min_id=" + all[n-1].ID, []string{}},
	} {
		if _, got := get(t, base+c.query); !slices.Equal(ids(got), c.want) {
			t.Errorf("%s\n got %v\nwant %v", c.query, ids(got), c.want)
		}
	}
}

func TestLinkHeadersWalkTheWholeTimeline(t *testing.T) {
	w := serve(t, standin.Config{Seed: 1, Posts: 300, Rate: unlimited})
	want := walk(t, w, "programming")
	var got []note
	for next := w.PostsURL() + "/api/v1/timelines/tag/programming?limit=40"; next != ""; {
		resp, page := get(t, next)
		got, next = append(got, page...), ""
		for part := range strings.SplitSeq(resp.Header.Get("Link"), ", ") {
			if address, rel, _ := strings.Cut(part, ">; rel="); rel == `"next"` {
				next = strings.TrimPrefix(address, "<")
			}
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d posts by rel=next, %d by min_id", len(got), len(want))
	}
}

func TestAClientOfTheFieldReadsIt(t *testing.T) {
	w := serve(t, standin.Config{Seed: 1, Posts: 100, Rate: unlimited})
	c := mastodon.NewClient(&mastodon.Config{Server: w.PostsURL()})
	page, err := c.GetTimelineHashtag(t.Context(), "programming", false, &mastodon.Pagination{MinID: "0", Limit: 40})
	if err != nil {
		t.Fatal(err)
	}
	if len(page) == 0 || page[0].Account.DisplayName == "" || page[0].CreatedAt.Year() != 2026 || len(page[0].Tags) == 0 {
		t.Errorf("%+v", page)
	}
}

func TestTheRateLimitSaysWhenToComeBack(t *testing.T) {
	w := serve(t, standin.Config{Seed: 1, Posts: 10, Rate: standin.Rate{Calls: 2, Window: time.Hour}})
	for i, want := range []int{200, 200, 429, 429} {
		resp, _ := get(t, w.PostsURL()+"/api/v1/timelines/tag/programming")
		if resp.StatusCode != want {
			t.Errorf("call %d: %s", i+1, resp.Status)
		}
		reset, err := time.Parse(time.RFC3339Nano, resp.Header.Get("X-RateLimit-Reset"))
		if err != nil || !reset.After(time.Now()) || resp.Header.Get("X-RateLimit-Remaining") != fmt.Sprint(max(1-i, 0)) {
			t.Errorf("call %d: headers %v", i+1, resp.Header)
		}
	}
	if c := w.Ledger().Counts(); c.Calls != 4 || c.Limited != 2 {
		t.Errorf("the ledger counted %+v", c)
	}
}

func TestTheAPIIsDownBySeed(t *testing.T) {
	w := serve(t, standin.Config{Seed: 1, Posts: 10, Rate: unlimited, Faults: standin.Faults{Down: 300}})
	down := 0
	for range 200 {
		if resp, _ := get(t, w.PostsURL()+"/api/v1/timelines/tag/programming"); resp.StatusCode == 503 {
			down++
		}
	}
	if down < 30 || down > 90 || w.Ledger().Counts().Unavailable != down {
		t.Errorf("%d of 200 calls failed, ledger says %d", down, w.Ledger().Counts().Unavailable)
	}
}
