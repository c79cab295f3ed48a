package publish

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/examples/news/internal/post"
	"github.com/gobroadway/gobroadway/examples/news/internal/render"
)

// Journal is B's memory of final outcomes; it survives restarts.
type Journal interface {
	// Outcomes returns what is known about a post.
	Outcomes(ctx context.Context, id string) ([]post.Publication, error)
	// Remember keeps an outcome. The first one for a post and platform stays.
	Remember(ctx context.Context, p post.Publication) error
}

// Republisher is part B: it renders a post and publishes it on every platform.
type Republisher struct {
	render  *render.Renderer
	journal Journal
	lanes   []*lane
}

// New makes a republisher. patience holds for each platform by itself.
func New(r *render.Renderer, j Journal, patience Patience, platforms ...Platform) *Republisher {
	b := &Republisher{render: r, journal: j}
	for _, p := range platforms {
		b.lanes = append(b.lanes, newLane(p, patience))
	}
	return b
}

// Handle is B as a [broadway.Processor]: it takes an encoded post and leaves the
// publications, a []post.Publication, as the message's value.
func (b *Republisher) Handle(ctx context.Context, m *broadway.Message) error {
	p, err := post.Decode(m.Payload)
	if err != nil {
		return broadway.Reject(err)
	}
	list, err := b.Republish(ctx, p)
	if err != nil {
		// A platform or the journal is down, which is not the post's fault.
		return broadway.Unavailable(err)
	}
	m.Value = list
	return nil
}

// Republish returns one publication for each platform. What the journal knows
// already is not done again. An error means that some outcome is not known yet;
// what was published before it is remembered.
func (b *Republisher) Republish(ctx context.Context, p post.Post) ([]post.Publication, error) {
	known, err := b.journal.Outcomes(ctx, p.ID)
	if err != nil {
		return nil, err
	}
	list := make([]post.Publication, 0, len(b.lanes))
	article := sync.OnceValues(func() (*render.Article, error) { return b.render.Render(p) })
	for _, l := range b.lanes {
		if done, ok := find(known, l.Name()); ok {
			list = append(list, done)
			continue
		}
		outcome, err := l.outcome(ctx, p.ID, article)
		if err != nil {
			return nil, fmt.Errorf("post %s: %w", p.ID, err)
		}
		// The effect is there and cannot be taken back: what it was is remembered
		// even when ctx has just ended.
		if err := b.journal.Remember(context.WithoutCancel(ctx), outcome); err != nil {
			return nil, err
		}
		list = append(list, outcome)
	}
	return list, nil
}

// GiveUp gives a post up on every platform where it has no outcome yet, and
// returns all of its outcomes.
func (b *Republisher) GiveUp(ctx context.Context, id string, reason error) ([]post.Publication, error) {
	known, err := b.journal.Outcomes(ctx, id)
	if err != nil {
		return nil, err
	}
	list := make([]post.Publication, 0, len(b.lanes))
	for _, l := range b.lanes {
		p, done := find(known, l.Name())
		if !done {
			p = post.Publication{
				Post: id, Platform: l.Name(), Format: l.Format(), Key: Key(l.Name(), id),
				Outcome: post.GivenUp, At: time.Now().UTC(), Error: fmt.Sprint(reason),
			}
			if err := b.journal.Remember(ctx, p); err != nil {
				return nil, err
			}
		}
		list = append(list, p)
	}
	return list, nil
}

func find(list []post.Publication, platform string) (post.Publication, bool) {
	for _, p := range list {
		if p.Platform == platform {
			return p, true
		}
	}
	return post.Publication{}, false
}
