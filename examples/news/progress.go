package main

import (
	"cmp"
	"context"
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/gobroadway/gobroadway/examples/news/internal/render"
)

// progress draws bars on a terminal until ctx ends. On anything else it says
// nothing.
func (s *system) progress(ctx context.Context, f flow) {
	if !terminal(s.screen) {
		return
	}
	bars := mpb.New(mpb.WithOutput(s.screen), mpb.WithWidth(40))
	left := int64(s.opts.posts) - s.start.Settled
	bar := func(name string, more func() string) *mpb.Bar {
		return bars.AddBar(max(left, 1),
			mpb.PrependDecorators(decor.Name(name, decor.WC{W: 16, C: decor.DindentRight}), decor.CountersNoUnit("%5d / %5d")),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return more() })))
	}
	pipelines := f.pipelines()
	first, last := pipelines[0], pipelines[len(pipelines)-1]
	calls := func() string { return plural(s.world.Ledger().Counts().Calls, "API call") }
	under := func() string { return "waits for " + render.Cut(cmp.Or(last.Stats().WaitingFor, "nothing"), 40) }
	a := bar("A ingested", calls)
	c := bar("C reported", under)
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for running := true; running; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			running = false
		}
		a.SetCurrent(first.Stats().Fetched)
		c.SetCurrent(last.Stats().Succeeded)
	}
	a.Abort(false)
	c.Abort(false)
	bars.Wait()
}

func terminal(w io.Writer) bool {
	f, is := w.(*os.File)
	return is && (isatty.IsTerminal(f.Fd()) || isatty.IsCygwinTerminal(f.Fd()))
}
