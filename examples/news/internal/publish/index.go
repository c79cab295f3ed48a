package publish

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gobroadway/gobroadway/examples/news/internal/post"
	"github.com/gobroadway/gobroadway/examples/news/internal/render"
)

// perPage is how many articles one index page lists.
const perPage = 100

// listed is an article as the site finds it in its own files.
type listed struct {
	render.Entry
	tags []string
}

// WriteIndex writes the pages that list the articles: all, and those of each
// hashtag in tags. It reads what is in the folder, so articles of earlier runs
// are listed too.
func (s *Site) WriteIndex(r *render.Renderer, tags []string) error {
	all, err := s.list()
	if err != nil {
		return fmt.Errorf("publish: index: %w", err)
	}
	tabs := []render.Tab{{Name: "All", Href: "index.html"}}
	for _, t := range tags {
		tabs = append(tabs, render.Tab{Name: "#" + t, Href: pageName("tag-"+t, 1)})
	}
	if err := s.writePages(r, "index", "News", all, tabs); err != nil {
		return fmt.Errorf("publish: index: %w", err)
	}
	for _, t := range tags {
		some := slices.DeleteFunc(slices.Clone(all), func(l listed) bool { return !slices.Contains(l.tags, t) })
		if err := s.writePages(r, "tag-"+t, "News about #"+t, some, tabs); err != nil {
			return fmt.Errorf("publish: index of #%s: %w", t, err)
		}
	}
	return nil
}

// list reads the articles' ActivityStreams files, newest first.
func (s *Site) list() ([]listed, error) {
	fsys := s.root.FS()
	entries, err := fs.ReadDir(fsys, articles)
	if err != nil {
		return nil, err
	}
	var all []listed
	for _, e := range entries {
		id, is := strings.CutSuffix(e.Name(), render.Extension(render.Activity))
		if !is || post.CheckID(id) != nil {
			continue
		}
		if _, err := fs.Stat(fsys, s.page(id, render.HTML)); err != nil {
			continue // not finished
		}
		raw, err := fs.ReadFile(fsys, path.Join(articles, e.Name()))
		if err != nil {
			return nil, err
		}
		one, err := readNote(id, raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b listed) int { return post.CompareIDs(b.ID, a.ID) })
	return all, nil
}

func readNote(id string, raw []byte) (listed, error) {
	var n struct {
		Name      string    `json:"name"`
		Published time.Time `json:"published"`
		Author    struct {
			Name string `json:"name"`
		} `json:"attributedTo"`
		Tags []struct {
			Name string `json:"name"`
		} `json:"tag"`
	}
	if err := json.Unmarshal(raw, &n); err != nil {
		return listed{}, err
	}
	l := listed{Entry: render.Entry{ID: id, Title: n.Name, Author: n.Author.Name, When: n.Published}}
	for _, t := range n.Tags {
		l.tags = append(l.tags, strings.TrimPrefix(t.Name, "#"))
	}
	return l, nil
}

func (s *Site) writePages(r *render.Renderer, name, title string, all []listed, tabs []render.Tab) error {
	pages := max((len(all)+perPage-1)/perPage, 1)
	for page := 1; page <= pages; page++ {
		x := render.Index{Title: title, Total: len(all), Page: page, Pages: pages, Tabs: tabs}
		for _, l := range all[(page-1)*perPage : min(page*perPage, len(all))] {
			x.Entries = append(x.Entries, l.Entry)
		}
		if page > 1 {
			x.Newer = pageName(name, page-1)
		}
		if page < pages {
			x.Older = pageName(name, page+1)
		}
		html, err := r.IndexPage(x)
		if err != nil {
			return err
		}
		if err := s.write(pageName(name, page), html); err != nil {
			return err
		}
	}
	return nil
}

func pageName(name string, page int) string {
	if page == 1 {
		return name + ".html"
	}
	return name + "-" + strconv.Itoa(page) + ".html"
}

// Published lists the ids of the articles whose file of the given format is
// there and not empty, as it is on the disk.
func (s *Site) Published(format string) ([]string, error) {
	entries, err := fs.ReadDir(s.root.FS(), articles)
	if err != nil {
		return nil, fmt.Errorf("publish: site: %w", err)
	}
	var ids []string
	for _, e := range entries {
		id, is := strings.CutSuffix(e.Name(), render.Extension(format))
		if !is || post.CheckID(id) != nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, fmt.Errorf("publish: site: %w", err)
		}
		if info.Size() > 0 {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
