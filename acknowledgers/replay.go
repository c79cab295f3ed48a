package acknowledgers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// Letter is what a dead letter says of itself.
type Letter struct {
	// Origin, ID, Stage, Reason, Attempts and Time are those of its headers; zero
	// where they are missing or make no sense.
	Origin, ID, Stage, Reason string
	Attempts                  int
	Time                      time.Time
	// Reference says that it is a reference, which cannot be put back: its
	// payload is not the original's.
	Reference bool
	// Message is the dead letter as it was consumed.
	Message *broadway.Message
}

// ReadLetter reads what m says as a dead letter.
func ReadLetter(m *broadway.Message) Letter {
	l := Letter{Message: m}
	e, ok := m.Metadata.(broadway.Enveloped)
	if !ok {
		return l
	}
	headers := e.MessageHeaders()
	text := func(key string) string {
		value, _ := lookUp(headers, key)
		return value
	}
	l.Origin, l.ID, l.Stage, l.Reason = text(HeaderOrigin), text(HeaderID), text(HeaderStage), text(HeaderReason)
	l.Attempts, _ = strconv.Atoi(text(HeaderAttempts))
	l.Time, _ = time.Parse(timeFormat, text(HeaderTime))
	l.Reference = IsReference(headers)
	return l
}

// Original is the message that the letter was made of, to be published to where
// it came from: payload, key and headers are as they were, and the headers of a
// dead letter are gone. On AMQP it goes to the queue that it came from, by the
// default exchange, without a time to live; its properties and the types of its
// headers are as they were.
func (l Letter) Original() broadway.Record {
	r := broadway.Record{Destination: l.Origin, Payload: l.Message.Payload, Source: l.Message.Metadata}
	e, ok := l.Message.Metadata.(broadway.Enveloped)
	if !ok {
		return r
	}
	headers := e.MessageHeaders()
	if _, null := lookUp(headers, HeaderNull); null {
		r.Payload = nil
	}
	r.Key, r.Headers = e.MessageKey(), slices.DeleteFunc(slices.Clone(headers), own)
	return r
}

// Rest is what becomes of a dead letter that is not put back.
type Rest uint8

const (
	// PutAtEnd publishes it again, as it is, to the end of where it was. It is the
	// default.
	PutAtEnd Rest = iota
	// PassOver settles it. That is right for a log such as Kafka's, which keeps it
	// for other consumer groups; a queue deletes it.
	PassOver
)

// Replay puts dead letters back to where they came from, by a pipeline of its own:
// each is published to its origin, and settled once that is confirmed. After a
// crash some are put back twice, and none is lost; message ids, where there are
// any, stay the same, so that readers can tell.
type Replay struct {
	// Source consumes the dead letters. Required; Run closes it.
	Source broadway.Producer
	// Publisher publishes to the broker that the letters came from. Required; Run
	// does not close it.
	Publisher broadway.Publisher
	// Match chooses the letters to be put back. Default: all.
	Match func(Letter) bool
	// Destination chooses where a letter goes. Default: its Origin.
	Destination func(Letter) string
	// Limit is how many letters are put back at most, 0 being all.
	Limit int64
	// Rest says what becomes of letters that Match does not choose, of references,
	// of what has no destination, and of what is too large for it.
	Rest Rest
	// Back publishes what is put at the end. Default: Publisher, which is right
	// when dead letters are on the same broker.
	Back broadway.Publisher
	// Follow makes Run go on until its context ends, and outlast brokers that are
	// away. Without it Run ends once as many letters are through as there were at
	// its beginning, or none is left, and with an error when one cannot be
	// published within five attempts.
	Follow bool
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Pipeline changes the pipeline before it is made, if set.
	Pipeline func(*broadway.Config)
}

// Replayed counts the letters of one Run.
type Replayed struct {
	// Back is how many were put back, Rest how many were not: of these References
	// are references, and TooLarge have no place in their origin any longer.
	Back, Rest, References, TooLarge int64
}

// errOver stops the pipeline of a Replay that is through.
var errOver = errors.New("acknowledgers: the replay is over")

// replay is one Run.
type replay struct {
	Replay
	seen, chosen     atomic.Int64
	back, rest       atomic.Int64
	references, huge atomic.Int64
	held             atomic.Int64  // letters in hold
	ready            chan struct{} // closed when total is known, and letters may go
	over             chan struct{} // closed when no more may
	total            int64         // letters at the beginning, 0 when that does not matter

	mu   sync.Mutex    // protects following field
	turn chan struct{} // closed, and replaced, when letters are counted anew
}

// put is a letter on its way, the Value of its message.
type put struct {
	record  broadway.Record
	rest    bool
	counted *atomic.Int64 // what it is, besides
}

// Run puts letters back. Letters that it does not get to stay where they are.
func (r Replay) Run(ctx context.Context) (Replayed, error) {
	x := &replay{Replay: r, ready: make(chan struct{}), over: make(chan struct{}), turn: make(chan struct{})}
	if x.Publisher == nil {
		return Replayed{}, errors.New("acknowledgers: Replay has no Publisher")
	}
	if x.Back == nil {
		x.Back = x.Publisher
	}
	cfg := broadway.Config{
		Name: "replay", Producers: []broadway.Producer{r.Source}, Logger: r.Logger,
		// One worker, so that letters are counted in their order: what was put at the end
		// must not take the place of a letter before it.
		Processor: broadway.ProcessorConfig{Handler: x.choose, Concurrency: 1},
		Batchers:  []broadway.BatcherConfig{{Size: 50, Timeout: 20 * time.Millisecond, Concurrency: 2, Reporter: x.publish}},
		Failure:   broadway.FailurePolicy{MaxAttempts: 5, Action: broadway.ActionStopPipeline},
		// What goes back is for others to judge, and a dead letter has headers besides.
		MessageLimits: broadway.MessageLimits{Payload: -1, Key: -1, Headers: -1, HeaderBytes: -1},
	}
	if r.Pipeline != nil {
		r.Pipeline(&cfg)
	}
	p, err := broadway.New(cfg)
	if err != nil {
		return Replayed{}, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	watched := make(chan error, 1)
	go func() {
		defer stop()
		defer close(x.over)
		watched <- x.watch(ctx, p)
	}()
	err = p.Run(ctx)
	stop()
	if watching := <-watched; err == nil || errors.Is(err, errOver) && !errors.Is(err, broadway.ErrDrainTimeout) {
		err = watching
	}
	return Replayed{Back: x.back.Load(), Rest: x.rest.Load(), References: x.references.Load(), TooLarge: x.huge.Load()}, err
}

// choose says what becomes of a letter. Its errors leave it where it is.
func (x *replay) choose(_ context.Context, m *broadway.Message) error {
	select {
	case <-x.ready:
	case <-x.over:
		return broadway.Reject(errOver)
	}
	for {
		turn := x.nextTurn() // before the counts are looked at
		if x.seen.Add(1) <= x.total || x.total == 0 {
			if p := x.judge(m); p != nil {
				m.Value = p
				return nil
			}
		}
		if !x.hold(turn) {
			return broadway.Reject(errOver)
		}
	}
}

// judge says where a letter goes, nil when enough were chosen before.
func (x *replay) judge(m *broadway.Message) *put {
	l := ReadLetter(m)
	record := l.Original()
	if x.Destination != nil {
		record.Destination = x.Destination(l)
	}
	switch {
	case l.Reference:
		return x.leave(l, &x.references)
	case record.Destination == "" || x.Match != nil && !x.Match(l):
		return x.leave(l, nil)
	case x.Limit > 0 && x.chosen.Add(1) > x.Limit:
		return nil
	}
	return &put{record: record}
}

// hold keeps a letter that is not to go until those before it have: they may have
// to be tried again, and an error stops the pipeline. It says whether the letter has
// another turn.
func (x *replay) hold(turn <-chan struct{}) bool {
	x.held.Add(1)
	defer x.held.Add(-1)
	select {
	case <-turn:
		return true
	case <-x.over:
		return false
	}
}

func (x *replay) nextTurn() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.turn
}

// renew counts letters by those that are through, and gives those in hold another
// turn. It is called when nothing else is on its way: letters that came again, as
// after a rebalance or a lost connection, were counted twice.
func (x *replay) renew(through int64) {
	x.seen.Store(through)
	x.chosen.Store(x.back.Load() + x.huge.Load())
	x.mu.Lock()
	defer x.mu.Unlock()
	close(x.turn)
	x.turn = make(chan struct{})
}

// leave makes l one of the rest, which goes where it was, as it is.
func (x *replay) leave(l Letter, counted *atomic.Int64) *put {
	p := &put{rest: true, counted: counted}
	p.record = broadway.Record{Payload: l.Message.Payload, Source: l.Message.Metadata}
	if e, ok := l.Message.Metadata.(broadway.Enveloped); ok {
		p.record.Destination, p.record.Key, p.record.Headers = e.MessageOrigin(), e.MessageKey(), e.MessageHeaders()
	}
	return p
}

// publish publishes the members of a batch, and fails those that are not
// confirmed.
func (x *replay) publish(ctx context.Context, b *broadway.Batch) error {
	failures := new(broadway.BatchError)
	var back, rest []*broadway.Message
	for _, m := range b.Messages {
		switch p := m.Value.(*put); {
		case !p.rest:
			back = append(back, m)
		case x.Rest == PutAtEnd:
			rest = append(rest, m)
		default:
			x.done(p)
		}
	}
	x.publishTo(ctx, x.Publisher, back, failures)
	x.publishTo(ctx, x.Back, rest, failures)
	return failures.Err()
}

// publishTo makes one call.
func (x *replay) publishTo(ctx context.Context, to broadway.Publisher, messages []*broadway.Message, failures *broadway.BatchError) {
	if len(messages) == 0 {
		return
	}
	records := make([]broadway.Record, len(messages))
	for i, m := range messages {
		records[i] = m.Value.(*put).record
	}
	errs, all := outcomes(to.Publish(ctx, records...), len(records))
	for i, m := range messages {
		err := all
		if errs != nil {
			err = errs[i]
		}
		p := m.Value.(*put)
		switch {
		case err == nil:
			x.done(p)
			continue
		case errors.Is(err, broadway.ErrTooLarge) && !p.rest:
			m.Value = x.leave(ReadLetter(m), &x.huge) // at the next attempt
		}
		err = fmt.Errorf("acknowledgers: %s is not put back: %w", m.ID(), err)
		if x.Follow {
			err = broadway.Unavailable(err)
		}
		failures.Fail(m, err)
	}
}

func (x *replay) done(p *put) {
	if p.counted != nil {
		p.counted.Add(1)
	}
	if p.rest {
		x.rest.Add(1)
	} else {
		x.back.Add(1)
	}
}

// watch finds out how many letters there are, before any goes, and when they are
// through.
func (x *replay) watch(ctx context.Context, p *broadway.Pipeline) error {
	if x.Follow {
		close(x.ready)
		<-ctx.Done()
		return nil
	}
	lagger, ok := x.Source.(broadway.Lagger)
	if !ok {
		return errors.New("acknowledgers: Replay cannot tell how many letters there are: its Source is no broadway.Lagger; set Follow")
	}
	const (
		tick   = 100 * time.Millisecond
		survey = 20 // ticks from the first answer: partitions answer one by one
		quiet  = 20 // ticks without a letter, or with none but those in hold
	)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	most := int64(1)
	for known, idle, stuck := 0, 0, 0; idle < quiet && !x.through(p.Stats()); {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		lags := lagger.Lag()
		left := int64(0)
		for _, l := range lags {
			left += l.Messages
		}
		st := p.Stats()
		if idle++; lags == nil || left > 0 || st.Unsettled > 0 {
			idle = 0
		}
		if stuck++; x.held.Load() == 0 || publishing(st) {
			stuck = 0
		}
		if stuck == quiet {
			stuck = 0
			x.renew(st.Succeeded)
		}
		if known == survey || lags == nil {
			continue
		}
		most = max(most, left)
		if known++; known == survey {
			x.total = most
			close(x.ready)
		}
	}
	return nil
}

// publishing says whether letters are on their way from choose to their settling.
func publishing(st broadway.Stats) bool {
	return slices.ContainsFunc(st.Batchers, func(b broadway.BatcherStats) bool { return b.Held > 0 })
}

// through says whether nothing more is to be done.
func (x *replay) through(st broadway.Stats) bool {
	select {
	case <-x.ready:
	default:
		return st.State == broadway.StateDraining
	}
	limited := x.Limit > 0 && x.back.Load()+x.huge.Load() >= x.Limit
	return limited || st.Succeeded >= x.total || st.State == broadway.StateDraining
}
