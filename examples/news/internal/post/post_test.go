package post_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gobroadway/gobroadway/examples/news/internal/post"
)

func TestAPostComesThroughAQueueUnchanged(t *testing.T) {
	in := post.Post{
		ID: "115843920331767808", URL: "https://social.example/@ada/1", Account: "ada@social.example",
		Author: "Ada λ", CreatedAt: time.Date(2026, 1, 5, 8, 0, 0, 123000, time.UTC), Language: "pl",
		Tags: []string{"architecture", "programming"}, HTML: "<p>Zażółć 日本 🎉 e\u0301</p>",
	}
	payload, err := in.Encode()
	if err != nil {
		t.Fatal(err)
	}
	out, err := post.Decode(payload)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out); diff != "" {
		t.Error(diff)
	}
}

func TestIDsThatCouldBePathsAreRefused(t *testing.T) {
	for _, id := range []string{"", "../../etc/passwd", "1/2", "12a", "-1", "１２", "1\n", "123456789012345678901"} {
		if err := post.CheckID(id); !errors.Is(err, post.ErrID) {
			t.Errorf("CheckID(%q) = %v", id, err)
		}
		if _, err := post.Decode([]byte(`{"id":` + quote(id) + `}`)); err == nil {
			t.Errorf("Decode accepted id %q", id)
		}
	}
	if err := post.CheckID("115843920331767808"); err != nil {
		t.Error(err)
	}
}

func quote(s string) string {
	if s == "1\n" {
		return `"1\n"`
	}
	return `"` + s + `"`
}

func TestCompareIDsIsNumeric(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"9", "10", -1}, {"10", "9", 1}, {"12", "12", 0}, {"12", "13", -1}} {
		if got := sign(post.CompareIDs(c.a, c.b)); got != c.want {
			t.Errorf("CompareIDs(%s, %s) = %d", c.a, c.b, got)
		}
	}
}

func sign(n int) int { return min(max(n, -1), 1) }

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"id":"1","html":"<p>x</p>"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		p, err := post.Decode(payload)
		if err == nil && post.CheckID(p.ID) != nil {
			t.Errorf("decoded id %q", p.ID)
		}
	})
}
