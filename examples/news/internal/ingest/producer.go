package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gobroadway/gobroadway/broadway"
)

// Metadata is what a message of the Producer carries besides its payload.
type Metadata struct{ post string }

// MessageID is the id of the post.
func (m *Metadata) MessageID() string { return m.post }

// Producer is part A as a pipeline sees it. Its payloads are encoded posts.
type Producer struct {
	posts  *Timelines
	cursor *Cursor
	// window is nil without a queue between A and B.
	window *Window
	// settles says that a message which settles here is done with. If not,
	// somebody else moves the cursor.
	settles bool

	ref  *broadway.AckRef
	seq  int64
	kept []item // read, and not handed out: waiting for the next demand

	mu        sync.Mutex // protects following fields
	back      []item     // handed out and given back
	interrupt func()     // ends the read that runs now; nil without one
}

// item is a post on its way out. again says that it was out before.
type item struct {
	id      string
	payload []byte
	again   bool
}

// ProducerOption changes a Producer.
type ProducerOption func(*Producer)

// WithWindow makes the producer take a credit of w for every post.
func WithWindow(w *Window) ProducerOption { return func(p *Producer) { p.window = w } }

// CursorElsewhere leaves the moving of the cursor to others, for a queue that
// forgets: a post in it is not done with.
func CursorElsewhere() ProducerOption { return func(p *Producer) { p.settles = false } }

// NewProducer makes a producer of the posts of t, whose progress c keeps.
func NewProducer(t *Timelines, c *Cursor, options ...ProducerOption) *Producer {
	p := &Producer{posts: t, cursor: c, settles: true}
	for _, o := range options {
		o(p)
	}
	p.ref = broadway.NewAckRef(acker{p}, nil, 0)
	return p
}

// Describe says what kind of source this is. Its posts stay at the API, so a
// message that fails may be dropped or dead-lettered, not requeued.
func (p *Producer) Describe(broadway.Limits) broadway.Traits {
	return broadway.Traits{Kind: "mastodon", Name: "posts"}
}

// Fetch hands out posts that were given back or are at hand; otherwise it asks
// the posts API, for at most what the demand and the window allow.
func (p *Producer) Fetch(ctx context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	for {
		p.takeBack()
		if len(p.kept) > 0 {
			break
		}
		if err := p.read(ctx, d.Messages); err != nil && !errors.Is(err, errBack) {
			return nil, err
		}
	}
	fits, room := 0, d.Bytes
	for fits < min(len(p.kept), d.Messages) && int64(len(p.kept[fits].payload)) <= room {
		room -= int64(len(p.kept[fits].payload))
		fits++
	}
	if fits == 0 {
		return nil, broadway.NeedBytes(int64(len(p.kept[0].payload)))
	}
	if fits = p.ref.Take(fits); fits == 0 { // the pipeline drains
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return p.hand(fits), nil
}

// hand makes messages of the first n posts that are kept.
func (p *Producer) hand(n int) []*broadway.Message {
	messages := make([]*broadway.Message, n)
	for i, next := range p.kept[:n] {
		p.seq++
		messages[i] = broadway.NewMessage(p.ref, p.seq, next.payload)
		messages[i].Metadata = &Metadata{post: next.id}
		messages[i].Redelivered = next.again
		if !next.again {
			p.cursor.Give(next.id)
		}
	}
	p.kept = p.kept[n:]
	return messages
}

// errBack interrupts a read: posts were given back, and go first. They may be
// the very ones that fill the window that the read waits for.
var errBack = errors.New("ingest: posts were given back")

// read keeps 1 to n posts, each with a credit of the window.
func (p *Producer) read(ctx context.Context, n int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !p.setInterrupt(func() { cancel(errBack) }) {
		return errBack
	}
	defer p.setInterrupt(nil)
	if p.window != nil {
		granted, err := p.window.Take(ctx, n)
		if err != nil {
			return err
		}
		n = granted
	}
	posts, err := p.posts.Next(ctx, n)
	if p.window != nil {
		p.window.Return(n - len(posts))
	}
	if err != nil {
		return err
	}
	for _, one := range posts {
		payload, err := one.Encode()
		if err != nil {
			return broadway.Fatal(fmt.Errorf("ingest: post %s: %w", one.ID, err))
		}
		p.kept = append(p.kept, item{id: one.ID, payload: payload})
	}
	return nil
}

// setInterrupt says whether the read may go on.
func (p *Producer) setInterrupt(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.interrupt = f
	return len(p.back) == 0
}

// takeBack puts what was given back in front of what is kept.
func (p *Producer) takeBack() {
	p.mu.Lock()
	back := p.back
	p.back = nil
	p.mu.Unlock()
	p.kept = append(back, p.kept...)
}

// giveBack keeps posts for the next Fetch, and wakes one that waits for others.
func (p *Producer) giveBack(items []item) {
	p.mu.Lock()
	p.back = append(p.back, items...)
	interrupt := p.interrupt
	p.mu.Unlock()
	if interrupt != nil {
		interrupt()
	}
}

// Close gives back the credits of posts that never went out. Nothing else is
// left to end: no call outlives its Fetch.
func (p *Producer) Close() error {
	p.takeBack()
	if p.window != nil {
		p.window.Return(len(p.kept))
	}
	p.kept = nil
	return nil
}

// acker moves the cursor over what has settled.
type acker struct{ p *Producer }

// Ack counts failed messages as done with too: their policy has dropped or
// dead-lettered them, and reading them again would fail again.
func (a acker) Ack(ctx context.Context, _ *broadway.AckRef, ok, failed []*broadway.Message) error {
	if !a.p.settles {
		return nil
	}
	ids := make([]string, 0, len(ok)+len(failed))
	for _, list := range [][]*broadway.Message{ok, failed} {
		for _, m := range list {
			meta, is := m.Metadata.(*Metadata)
			if !is {
				return errors.New("ingest: a message of another producer")
			}
			ids = append(ids, meta.post)
		}
	}
	return a.p.cursor.Settle(ctx, ids...)
}

// Release takes posts back that were not processed.
func (a acker) Release(_ context.Context, _ *broadway.AckRef, messages []*broadway.Message) error {
	items := make([]item, 0, len(messages))
	for _, m := range messages {
		meta, is := m.Metadata.(*Metadata)
		if !is {
			return errors.New("ingest: a message of another producer")
		}
		items = append(items, item{id: meta.post, payload: m.Payload, again: true})
	}
	a.p.giveBack(items)
	return nil
}
