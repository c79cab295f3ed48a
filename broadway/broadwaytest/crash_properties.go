package broadwaytest

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// Crasher is an optional interface of a Source that counts attempts over crashes:
// see [broadway.Producer].
type Crasher interface {
	// Crash ends the open producer as a kill of its process would: when it has
	// returned, nothing that the producer does reaches the source any more, not
	// its Close either, and the next producer gets what it left.
	Crash(ctx context.Context) error
}

func crashProperties() []Property {
	return []Property{{
		"AttemptsSurviveCrashes",
		"a message that kills each process that handles it is given up after its attempts, and those beside it are not",
		attemptsSurviveCrashes,
	}}
}

// crashAttempts is the MaxAttempts of the pipelines of attemptsSurviveCrashes.
const crashAttempts = 3

// deaths is a row of pipelines, each of which is killed while it handles the
// poison, until one gives it up.
type deaths struct {
	*sourceCheck
	crasher  Crasher
	texts    []string
	poison   string
	attempts []int // of the poison, in each life that handled it
	givenUp  bool
	handled  map[string]bool
}

// sighting is what a handler or the dead letterer got.
type sighting struct {
	text    string
	attempt int
	dead    bool
}

func attemptsSurviveCrashes(k *check) {
	s := k.source()
	crasher, ok := s.Source.(Crasher)
	if !ok {
		k.Logf("the source does not count attempts over crashes")
		return
	}
	d := &deaths{sourceCheck: s, crasher: crasher, texts: s.produce(5), handled: map[string]bool{}}
	d.poison = d.texts[1]
	most := crashAttempts + k.UncountedCrashes
	for !d.live() {
		if n := len(d.attempts); n > most {
			k.Fatalf("%d processes died of a message, whose attempts were %v; at most %d should have", n, d.attempts, most)
		}
	}
	if len(d.attempts) < crashAttempts {
		k.Errorf("the message was given up after %d attempts, of %d", len(d.attempts), crashAttempts)
	}
	for i := 1; i < len(d.attempts); i++ {
		if d.attempts[i] < d.attempts[i-1] {
			k.Errorf("the attempts do not rise: %v", d.attempts)
		}
	}
	c := s.open()
	for left := c.try(1, k.Quiet); len(left) > 0; left = c.try(1, k.Quiet) {
		if left[0].text == d.poison && !k.Cumulative {
			k.Errorf("the message came again after it was given up")
		}
		c.settle(left...)
	}
	c.close()
	s.wantLeft(0)
}

// live runs one pipeline, and says whether it outlived the poison.
func (d *deaths) live() bool {
	d.Helper()
	seen, fate := make(chan sighting, 1000), newFate()
	p, err := broadway.New(broadway.Config{
		Name:      "conformance-crashes",
		Producers: []broadway.Producer{d.Open(d.TB)},
		Processor: broadway.ProcessorConfig{Concurrency: 2, Unordered: true, Handler: func(ctx context.Context, m *broadway.Message) error {
			text := string(m.Payload)
			seen <- sighting{text: text, attempt: m.Attempt}
			switch text {
			case d.poison:
				fate.decide(false)
				<-ctx.Done()
			case d.texts[2]: // dies beside the poison, unless that is given up
				fate.share(ctx, d.Quiet)
			}
			return nil
		}},
		Failure: broadway.FailurePolicy{
			MaxAttempts: crashAttempts, Action: broadway.ActionDeadLetter, DeadLetter: deadLetters{seen, d.poison, fate},
		},
		Logger:       slog.New(slog.DiscardHandler),
		DrainTimeout: d.Timeout,
	})
	if err != nil {
		d.Fatalf("no pipeline can be made: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	over := make(chan error, 1)
	go func() { over <- p.Run(ctx) }()
	outlived := d.watch(seen)
	if !outlived {
		if err := d.crasher.Crash(ctx); err != nil {
			d.Errorf("the producer cannot be made to crash: %v", err)
		}
		p.Abort()
	}
	stop()
	if err := <-over; err != nil && outlived {
		d.Errorf("Run: %v", err)
	}
	close(seen) // every handler has returned
	for s := range seen {
		d.note(s)
	}
	return outlived
}

// fate is what becomes of the poison in one life: a handler gets it, or it is given
// up.
type fate struct {
	once    sync.Once
	decided chan struct{}
	givenUp bool // to be read once decided is closed
}

func newFate() *fate { return &fate{decided: make(chan struct{})} }

func (f *fate) decide(givenUp bool) {
	f.once.Do(func() {
		f.givenUp = givenUp
		close(f.decided)
	})
}

// share returns once the poison is given up; if a handler has it, with the process.
// A source that delivers suspects one at a time has no poison beside this one: that
// is waited for only for alone.
func (f *fate) share(ctx context.Context, alone time.Duration) {
	timer := time.NewTimer(alone)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.decided:
		if !f.givenUp {
			<-ctx.Done()
		}
	case <-ctx.Done():
	}
}

// deadLetters confirms everything, and tells of it.
type deadLetters struct {
	seen   chan<- sighting
	poison string
	fate   *fate
}

func (l deadLetters) DeadLetter(_ context.Context, messages []*broadway.Message) error {
	for _, m := range messages {
		l.seen <- sighting{text: string(m.Payload), attempt: m.Attempt, dead: true}
		if string(m.Payload) == l.poison {
			l.fate.decide(true)
		}
	}
	return nil
}

// watch waits until the poison is handled: false; or until it was given up and all
// others have been handled.
func (d *deaths) watch(seen <-chan sighting) bool {
	d.Helper()
	timeout := time.After(d.Timeout)
	for died := len(d.attempts); !d.givenUp || len(d.handled) < len(d.texts)-1; {
		select {
		case s := <-seen:
			d.note(s)
		case <-timeout:
			d.Fatalf("no end: given up %v; handled beside it %v", d.givenUp, d.handled)
		}
		if len(d.attempts) > died {
			return false
		}
	}
	return true
}

func (d *deaths) note(s sighting) {
	d.Helper()
	switch {
	case s.text != d.poison:
		d.handled[s.text] = true
		if s.dead {
			d.Errorf("%q was given up after %d attempts, though it killed nobody", s.text, s.attempt)
		}
	case s.dead:
		d.givenUp = true
	default:
		d.attempts = append(d.attempts, s.attempt)
	}
}
