package publish_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/gobroadway/gobroadway/examples/news/internal/render"
)

func articleOf(t *testing.T, r *render.Renderer, id int, title string, tags ...string) *render.Article {
	t.Helper()
	p := onePost()
	p.ID, p.HTML, p.Tags = fmt.Sprint(id), "<p>"+title+"</p>", tags
	p.CreatedAt = p.CreatedAt.Add(time.Duration(id) * time.Minute)
	a, err := r.Render(p)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestASiteHasEveryRenderingAndOnlyItsOwnerReadsIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "site")
	s := site(t, dir)
	r := renderer(t)
	a := articleOf(t, r, 7, "hello", "x")
	for range 2 { // a second attempt changes nothing
		if remote, err := s.Publish(t.Context(), a, "k"); remote != "posts/7.html" || err != nil {
			t.Fatal(remote, err)
		}
	}
	if err := s.WriteIndex(r, []string{"x"}); err != nil {
		t.Fatal(err)
	}
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if !d.IsDir() {
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			names = append(names, filepath.ToSlash(name))
		}
		return nil
	})
	want := []string{"index.html", "posts/7.html", "posts/7.json", "posts/7.md", "posts/7.pdf", "posts/7.txt", "tag-x.html"}
	if err != nil || !slices.Equal(names, want) {
		t.Errorf("%v, %v", names, err)
	}
	for _, format := range render.Formats() {
		raw, err := os.ReadFile(filepath.Join(dir, "posts", "7"+render.Extension(format)))
		if err != nil || string(raw) != string(a.Formats[format]) {
			t.Errorf("%s differs, %v", format, err)
		}
	}
}

func TestNothingIsWrittenOutsideTheSite(t *testing.T) {
	parent := t.TempDir()
	s := site(t, filepath.Join(parent, "site"))
	a := articleOf(t, renderer(t), 7, "hello")
	for _, id := range []string{"../evil", "..\\evil", "/evil", "a", ""} {
		a.Post.ID = id
		if _, err := s.Publish(t.Context(), a, "k"); err == nil {
			t.Errorf("id %q was written", id)
		}
	}
	// A link within the site that leads out of it.
	posts := filepath.Join(parent, "site", "posts")
	if err := os.Remove(posts); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(parent, posts); err != nil {
		t.Fatal(err)
	}
	a.Post.ID = "8"
	if _, err := s.Publish(t.Context(), a, "k"); err == nil {
		t.Error("it wrote through a link")
	}
	entries, err := os.ReadDir(parent)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestHalfWrittenFilesOfAKilledProcessAreRemoved(t *testing.T) {
	dir := t.TempDir()
	first := site(t, dir)
	if _, err := first.Publish(t.Context(), articleOf(t, renderer(t), 7, "hello"), "k"); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, "posts", ".unfinished-XYZ")
	if err := os.WriteFile(left, []byte("<p>half"), 0o600); err != nil {
		t.Fatal(err)
	}
	second := site(t, dir)
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Error("it is still there", err)
	}
	if ids, err := second.Published(render.HTML); !slices.Equal(ids, []string{"7"}) || err != nil {
		t.Error(ids, err)
	}
}

func TestTheIndexListsTheNewestFirstOnSeveralPages(t *testing.T) {
	dir := t.TempDir()
	s := site(t, dir)
	r := renderer(t)
	template := articleOf(t, r, 1, "x")
	for id := 1; id <= 230; id++ {
		a := *template
		a.Post.ID = fmt.Sprint(1000 + id)
		a.Formats = map[string][]byte{}
		for f, b := range template.Formats {
			a.Formats[f] = b
		}
		tag := "odd"
		if id%2 == 0 {
			tag = "even"
		}
		a.Formats[render.Activity] = fmt.Appendf(nil, `{"name":"post <%d> & more","published":"2026-01-05T08:00:00Z","attributedTo":{"name":"A <b>"},"tag":[{"name":"#%s"}]}`, id, tag)
		if _, err := s.Publish(t.Context(), &a, "k"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.WriteIndex(r, []string{"even", "odd", "none"}); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, name := range []string{"index.html", "index-2.html", "index-3.html"} {
		all = append(all, listedOn(t, filepath.Join(dir, name))...)
	}
	if len(all) != 230 || all[0] != "posts/1230.html post <230> & more" || all[229] != "posts/1001.html post <1> & more" {
		t.Errorf("%d articles, from %q to %q", len(all), all[0], all[len(all)-1])
	}
	if even := listedOn(t, filepath.Join(dir, "tag-even-2.html")); len(even) != 15 || even[14] != "posts/1002.html post <2> & more" {
		t.Errorf("%v", even)
	}
	if none := listedOn(t, filepath.Join(dir, "tag-none.html")); len(none) != 0 {
		t.Errorf("%v", none)
	}
	if _, err := os.Stat(filepath.Join(dir, "index-4.html")); !os.IsNotExist(err) {
		t.Error("a fourth page", err)
	}
}

// listedOn reads an index page and follows its links to neighbours.
func listedOn(t *testing.T, path string) (out []string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := html.Parse(strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	for n := range doc.Descendants() {
		if n.Data != "a" || n.FirstChild == nil {
			continue
		}
		href := n.Attr[0].Val
		if strings.HasSuffix(href, ".html") && strings.HasPrefix(href, "posts/") {
			out = append(out, href+" "+n.FirstChild.Data)
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), href)); err != nil {
			t.Errorf("%s links to %s: %v", path, href, err)
		}
	}
	return out
}
