package stage_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/gobroadway/gobroadway/broadway/stage"
)

// ledger is what a Credit shows of itself.
type ledger struct{ free, reserved, taken int64 }

func show(c *stage.Credit) ledger {
	return ledger{c.Free(), c.Reserved(), c.Taken()}
}

// refused runs f and returns the *CreditError it panics with, or nil.
func refused(t *testing.T, f func()) (err *stage.CreditError) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(error)
			if !ok || !errors.As(e, &err) {
				t.Fatalf("panicked with %v, not with a *CreditError", r)
			}
		}
	}()
	f()
	return nil
}

func TestCreditMovesThroughItsStates(t *testing.T) {
	c := stage.NewCredit(10)
	steps := []struct {
		name string
		do   func()
		want ledger
	}{
		{"new", func() {}, ledger{10, 0, 0}},
		{"reserve", func() { c.Reserve(7) }, ledger{3, 7, 0}},
		{"take some", func() { c.Take(4) }, ledger{3, 3, 4}},
		{"the ask ended short", func() { c.Cancel(3) }, ledger{6, 0, 4}},
		{"ask while some are unsettled", func() { c.Reserve(6) }, ledger{0, 6, 4}},
		{"settle some", func() { c.Return(1) }, ledger{1, 6, 3}},
		{"take the rest", func() { c.Take(6) }, ledger{1, 0, 9}},
		{"settle all", func() { c.Return(9) }, ledger{10, 0, 0}},
	}
	for _, s := range steps {
		s.do()
		if got := show(c); got != s.want {
			t.Fatalf("%s: got %+v, want %+v", s.name, got, s.want)
		}
	}
	if c.Bound() != 10 {
		t.Fatalf("Bound() = %d, want 10", c.Bound())
	}
}

func TestCreditGrantsNoMoreThanIsFree(t *testing.T) {
	c := stage.NewCredit(10)
	for _, s := range []struct{ ask, want int64 }{{4, 4}, {0, 0}, {math.MaxInt64, 6}, {1, 0}} {
		if got := c.Reserve(s.ask); got != s.want {
			t.Fatalf("Reserve(%d) = %d, want %d", s.ask, got, s.want)
		}
	}
}

func TestCreditOverdrawsForOneAskOnly(t *testing.T) {
	c := stage.NewCredit(10)
	if !c.ReserveAlone(25) {
		t.Fatal("refused with an empty ledger")
	}
	if got, want := show(c), (ledger{-15, 25, 0}); got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if c.ReserveAlone(1) || c.Reserve(1) != 0 {
		t.Fatal("something was granted beside the overdraft")
	}
	c.Take(25)
	c.Return(15)
	if got := c.Reserve(1); got != 0 {
		t.Fatalf("granted %d while the bound is used up", got)
	}
	c.Return(1)
	if got := c.Reserve(5); got != 1 {
		t.Fatalf("granted %d, want the 1 that came back", got)
	}
	c.Cancel(1)
	c.Return(9)
	if got, want := show(c), (ledger{10, 0, 0}); got != want {
		t.Fatalf("the overdraft was not paid back exactly: got %+v, want %+v", got, want)
	}
}

func TestCreditRefusesOverdraftUnlessEmpty(t *testing.T) {
	for name, fill := range map[string]func(c *stage.Credit){
		"one reserved": func(c *stage.Credit) { c.Reserve(1) },
		"one taken":    func(c *stage.Credit) { c.Reserve(1); c.Take(1) },
	} {
		t.Run(name, func(t *testing.T) {
			c := stage.NewCredit(10)
			fill(c)
			before := show(c)
			if c.ReserveAlone(11) {
				t.Fatal("overdrawn beside another")
			}
			if got := show(c); got != before {
				t.Fatalf("a refused ask changed the ledger from %+v to %+v", before, got)
			}
		})
	}
}

// One credit too many, at whichever transition it is injected, must not pass.
func TestCreditRefusesAnInjectedCredit(t *testing.T) {
	cases := []struct {
		name   string
		inject func(c *stage.Credit)
		reason string
	}{
		{"one Return too many", func(c *stage.Credit) { c.Return(4) }, "more than is taken"},
		{"one Take too many", func(c *stage.Credit) { c.Take(3) }, "more than is reserved"},
		{"one Cancel too many", func(c *stage.Credit) { c.Cancel(3) }, "more than is reserved"},
		{"negative Reserve", func(c *stage.Credit) { c.Reserve(-1) }, "negative"},
		{"negative ReserveAlone", func(c *stage.Credit) { c.ReserveAlone(-1) }, "negative"},
		{"negative Take", func(c *stage.Credit) { c.Take(-1) }, "negative"},
		{"negative Cancel", func(c *stage.Credit) { c.Cancel(-1) }, "negative"},
		{"negative Return", func(c *stage.Credit) { c.Return(-1) }, "negative"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := stage.NewCredit(10)
			c.Reserve(5)
			c.Take(3)
			before := show(c)
			err := refused(t, func() { tc.inject(c) })
			if err == nil {
				t.Fatal("it was accepted")
			}
			if err.Reason != tc.reason {
				t.Errorf("reason %q, want %q", err.Reason, tc.reason)
			}
			if got := show(c); got != before {
				t.Errorf("the ledger changed from %+v to %+v", before, got)
			}
			for _, part := range []string{err.Op, "bound 10", "reserved 2", "taken 3"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not name %q", err.Error(), part)
				}
			}
		})
	}
}

func TestCreditRefusesABoundThatGrantsNothing(t *testing.T) {
	for _, bound := range []int64{0, -1, math.MinInt64} {
		if refused(t, func() { stage.NewCredit(bound) }) == nil {
			t.Errorf("NewCredit(%d) was accepted", bound)
		}
	}
}
