package publish

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/gobroadway/gobroadway/examples/news/internal/post"
	"github.com/gobroadway/gobroadway/examples/news/internal/render"
)

// Site is a static site: a folder that a browser opens. Nothing is written
// outside it, whatever a name says ([os.Root]), and a file is there whole or not
// at all: it is written under another name and then renamed.
type Site struct {
	root *os.Root
	dir  string
}

const articles = "posts"

// OpenSite opens the folder, makes it if need be (for its owner only), and
// removes what a killed process left half-written.
func OpenSite(dir string) (*Site, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("publish: site: %w", err)
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return nil, fmt.Errorf("publish: site: %w", err)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, fmt.Errorf("publish: site: %w", err)
	}
	s := &Site{root: root, dir: abs}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("publish: site: %w", err), root.Close())
	}
	return s, nil
}

func (s *Site) prepare() error {
	if err := s.root.MkdirAll(articles, 0o700); err != nil {
		return err
	}
	for _, dir := range []string{".", articles} {
		entries, err := fs.ReadDir(s.root.FS(), dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), unfinished) {
				continue
			}
			if err := s.root.Remove(path.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// unfinished begins the name of a file that is being written.
const unfinished = ".unfinished-"

// Dir is the folder, absolute.
func (s *Site) Dir() string { return s.dir }

// Index is the file to open in a browser.
func (s *Site) Index() string { return filepath.Join(s.dir, "index.html") }

// Close closes the folder.
func (s *Site) Close() error { return s.root.Close() }

// Name is "site".
func (s *Site) Name() string { return "site" }

// Format is HTML; the other renderings lie beside it.
func (s *Site) Format() string { return render.HTML }

// Publish writes every rendering of an article. The page comes last: when it is
// there, all are. Writing twice leaves what writing once does.
func (s *Site) Publish(ctx context.Context, a *render.Article, _ string) (string, error) {
	if err := post.CheckID(a.Post.ID); err != nil {
		return "", &RefusedError{Reason: err.Error()}
	}
	for _, format := range []string{render.PDF, render.Markdown, render.Text, render.Activity, render.HTML} {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if err := s.write(s.page(a.Post.ID, format), a.Formats[format]); err != nil {
			return "", fmt.Errorf("publish: site: %w", err)
		}
	}
	return s.page(a.Post.ID, render.HTML), nil
}

func (s *Site) page(id, format string) string {
	return path.Join(articles, id+render.Extension(format))
}

// write makes name hold data, at once.
func (s *Site) write(name string, data []byte) error {
	temp := path.Join(path.Dir(name), unfinished+rand.Text())
	file, err := s.root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Close())
	if err == nil {
		err = s.root.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, s.root.Remove(temp))
	}
	return nil
}
