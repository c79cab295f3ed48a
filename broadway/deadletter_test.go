package broadway_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

// letterbox is a DeadLetterer that does what next says, and keeps what was
// confirmed.
type letterbox struct {
	mu        sync.Mutex
	next      func(context.Context, []string) error // nil confirms all
	confirmed []string
	calls     []string
}

func (l *letterbox) set(next func(context.Context, []string) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = next
}

func (l *letterbox) got() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.confirmed)
}

func (l *letterbox) DeadLetter(ctx context.Context, ms []*broadway.Message) error {
	var names []string
	for _, m := range ms {
		names = append(names, string(m.Payload))
	}
	l.mu.Lock()
	next := l.next
	l.calls = append(l.calls, strings.Join(names, " "))
	l.mu.Unlock()
	if next != nil {
		if err := next(ctx, names); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.confirmed = append(l.confirmed, names...)
	return nil
}

// lettering runs a pipeline that gives every message to box.
func lettering(t *testing.T, box broadway.DeadLetterer, log *slog.Logger) (*broadwaytest.Producer, *broadway.Pipeline, func() error) {
	t.Helper()
	src := broadwaytest.NewProducer(broadway.Traits{})
	p := build(t, broadway.Config{
		Producers:    []broadway.Producer{src},
		Processor:    broadway.ProcessorConfig{Concurrency: 1, Handler: func(context.Context, *broadway.Message) error { return broadway.Reject(errFail) }},
		Failure:      broadway.FailurePolicy{Action: broadway.ActionDeadLetter, DeadLetter: box},
		DrainTimeout: 10 * time.Second, MaxUnsettled: 1000, Logger: log,
	})
	return src, p, background(t, p)
}

// A publisher that refuses whole calls because of one record does not say which.
func TestOneDeadLetterDoesNotFailItsNeighboursForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &letterbox{next: func(_ context.Context, names []string) error {
			if slices.Contains(names, "poison") {
				return errFail
			}
			return nil
		}}
		src, p, stop := lettering(t, box, nil)
		for i := range 99 {
			src.Push(fmt.Sprint(i))
			if i == 50 {
				src.Push("poison")
			}
		}
		time.Sleep(5 * time.Minute)
		if n := len(box.got()); n != 99 {
			t.Errorf("%d of 99 are confirmed beside one that is not", n)
		}
		if st := p.Stats(); st.Unsettled != 1 || st.Err == nil {
			t.Errorf("%d unsettled, unhealthy because of %v", st.Unsettled, st.Err)
		}
		box.set(nil)
		time.Sleep(time.Minute)
		if st := p.Stats(); st.Unsettled != 0 || st.Err != nil {
			t.Errorf("%d unsettled, unhealthy because of %v", st.Unsettled, st.Err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// A call for a dead letter that is tried again may last until its time-out.
func TestWhatIsTriedAgainDelaysNothingNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tried := map[string]bool{}
		box := &letterbox{}
		box.next = func(ctx context.Context, names []string) error {
			if names[0] != "slow" {
				return nil
			}
			box.mu.Lock()
			again := tried["slow"]
			tried["slow"] = true
			box.mu.Unlock()
			if again {
				<-ctx.Done() // until the drain's end
			}
			return errFail
		}
		src, p, stop := lettering(t, box, nil)
		src.Push("slow")
		time.Sleep(time.Minute)
		src.Push("new")
		synctest.Wait()
		if got := box.got(); !slices.Equal(got, []string{"new"}) {
			t.Errorf("confirmed %q", got)
		}
		if err := stop(); !errors.Is(err, broadway.ErrDrainTimeout) {
			t.Errorf("Run: %v", err)
		}
		if st := p.Stats(); st.Unsettled != 0 || st.DeadLettered != 1 || st.Released != 1 {
			t.Errorf("%d unsettled, %d dead-lettered, %d released", st.Unsettled, st.DeadLettered, st.Released)
		}
	})
}

// New arrivals do not put off those that wait.
func TestWhatWasRefusedIsTriedThoughMoreIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &letterbox{next: func(context.Context, []string) error { return errFail }}
		src, _, stop := lettering(t, box, nil)
		for i := range 50 {
			src.Push(fmt.Sprint(i))
			time.Sleep(500 * time.Millisecond)
		}
		box.mu.Lock()
		times := 0
		for _, call := range box.calls {
			if slices.Contains(strings.Fields(call), "0") {
				times++
			}
		}
		box.mu.Unlock()
		if times < 4 {
			t.Errorf("the first was tried %d times in 25 s", times)
		}
		_ = stop()
	})
}

func TestDeadLetterersThatExitAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &letterbox{next: func(context.Context, []string) error {
			runtime.Goexit()
			return nil
		}}
		src, p, stop := lettering(t, box, nil)
		src.Push("x")
		time.Sleep(time.Minute)
		if st := p.Stats(); st.Unsettled != 1 || !errors.Is(st.Err, broadway.ErrGoexit) {
			t.Errorf("%d unsettled, unhealthy because of %v", st.Unsettled, st.Err)
		}
		box.set(nil)
		time.Sleep(time.Minute)
		if err := stop(); err != nil || !slices.Equal(box.got(), []string{"x"}) {
			t.Errorf("Run: %v, confirmed %q", err, box.got())
		}
	})
}

type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Each cause is logged once, until all is well again.
func TestUnconfirmedDeadLettersAreLoggedOncePerCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &lockedText{}
		full, away := errors.New("the queue is full"), errors.New("the broker is away")
		box := &letterbox{}
		fail := func() {
			var n atomic.Int32
			box.set(func(context.Context, []string) error { return []error{full, away}[n.Add(1)%2] })
		}
		fail()
		src, p, stop := lettering(t, box, slog.New(slog.NewTextHandler(out, nil)))
		for range 30 {
			src.Push("x", "y", "z")
			time.Sleep(10 * time.Second)
		}
		lines := func() string {
			return fmt.Sprint(strings.Count(out.String(), "dead letters are not confirmed"), strings.Count(out.String(), full.Error()), strings.Count(out.String(), away.Error()))
		}
		if got := lines(); got != "2 1 1" {
			t.Errorf("logged %s times:\n%s", got, out.String())
		}
		box.set(nil)
		time.Sleep(time.Hour)
		if st := p.Stats(); st.Unsettled != 0 || st.Err != nil {
			t.Errorf("%d unsettled, %v", st.Unsettled, st.Err)
		}
		fail()
		src.Push("x")
		time.Sleep(time.Minute)
		if got := lines(); got != "4 2 2" {
			t.Errorf("logged %s times:\n%s", got, out.String())
		}
		_ = stop()
	})
}

// A partition that is revoked does not wait for dead letters that nobody takes.
func TestARefThatDrainsDoesNotWaitForDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &letterbox{next: func(context.Context, []string) error { return errFail }}
		src, p, stop := lettering(t, box, nil)
		src.Push("x", "y")
		time.Sleep(10 * time.Minute)
		ref := src.Ref()
		ref.Drain()
		start := time.Now()
		if err := ref.Wait(t.Context()); err != nil || time.Since(start) > 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if st := p.Stats(); st.Released != 2 || st.Err != nil {
			t.Errorf("%d released, %v", st.Released, st.Err)
		}
		_ = stop()
	})
}

// blockable is a letterbox that tells whether it can be reached.
type blockable struct {
	*letterbox
	why atomic.Pointer[error]
}

// Health is why it cannot.
func (b *blockable) Health() error {
	if why := b.why.Load(); why != nil {
		return *why
	}
	return nil
}

// A publisher that knows that it is blocked is not waited for until its time-out.
func TestAPipelineIsAsUnhealthyAsThePublisherOfItsDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &blockable{letterbox: &letterbox{}}
		_, p, stop := lettering(t, box, nil)
		synctest.Wait()
		if err := p.Stats().Err; err != nil {
			t.Errorf("unhealthy without a reason: %v", err)
		}
		blocked := errors.New("low on memory")
		box.why.Store(&blocked)
		if err := p.Stats().Err; !errors.Is(err, blocked) {
			t.Errorf("%v instead of %v", err, blocked)
		}
		box.why.Store(nil)
		if err := p.Stats().Err; err != nil {
			t.Errorf("unhealthy again: %v", err)
		}
		_ = stop()
	})
}

// refusing confirms no dead letter.
type refusing struct{}

func (refusing) DeadLetter(context.Context, []*broadway.Message) error { return errFail }

// WaitingFor names dead letters that are not confirmed.
func TestWaitingForDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := broadwaytest.NewProducer(broadway.Traits{})
		src.Push("x")
		p := build(t, broadway.Config{
			Producers:    []broadway.Producer{src},
			Processor:    broadway.ProcessorConfig{Concurrency: 1, Handler: func(ctx context.Context, m *broadway.Message) error { return broadway.Reject(errFail) }},
			Failure:      broadway.FailurePolicy{Action: broadway.ActionDeadLetter, DeadLetter: refusing{}},
			DrainTimeout: 10 * time.Second,
		})
		stop := background(t, p)
		time.Sleep(time.Minute)
		if st := p.Stats(); !strings.HasPrefix(st.WaitingFor, "dead letters: ") || !strings.Contains(st.WaitingFor, errFail.Error()) {
			t.Errorf("WaitingFor %q, Err %v, unsettled %d", st.WaitingFor, st.Err, st.Unsettled)
		}
		_ = stop()
	})
}

// poison confirms all dead letters but those whose payload is "poison", and keeps when.
type poison struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (p *poison) DeadLetter(_ context.Context, ms []*broadway.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	be := new(broadway.BatchError)
	for _, m := range ms {
		if string(m.Payload) == "poison" {
			be.Fail(m, errFail)
			continue
		}
		p.at[string(m.Payload)] = time.Now()
	}
	return be.Err()
}

// A dead letter that is never confirmed does not delay the others.
func TestADeadLetterThatIsRefusedHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := broadwaytest.NewProducer(broadway.Traits{})
		d := &poison{at: map[string]time.Time{}}
		p := build(t, broadway.Config{
			Producers:    []broadway.Producer{src},
			Processor:    broadway.ProcessorConfig{Concurrency: 1, Handler: func(ctx context.Context, m *broadway.Message) error { return broadway.Reject(errFail) }},
			Failure:      broadway.FailurePolicy{Action: broadway.ActionDeadLetter, DeadLetter: d},
			DrainTimeout: 10 * time.Second, MaxUnsettled: 1000,
		})
		stop := background(t, p)
		for range 100 {
			src.Push("poison")
		}
		time.Sleep(5 * time.Minute)
		start := time.Now()
		src.Push("good")
		time.Sleep(time.Hour)
		if at, ok := d.at["good"]; !ok {
			t.Error("never published in an hour behind 100 that are not confirmed")
		} else if at.Sub(start) > time.Second {
			t.Errorf("published after %v", at.Sub(start))
		}
		_ = stop()
	})
}
