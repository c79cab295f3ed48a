package stage

import "fmt"

// Credit is the ledger of one bound: how much of it is asked for (reserved),
// how much has arrived and is not settled (taken), and how much is free. The
// unit is the caller's: events, messages or bytes.
//
//	        Reserve            Take             Return
//	free ────────────▶ reserved ────▶ taken ────────────▶ free
//	  ▲                   │
//	  └────── Cancel ─────┘
//
// At each transition reserved >= 0, taken >= 0 and reserved+taken <= bound, but
// for a lone overdraft (see [Credit.ReserveAlone]). A transition that would
// break this is a programmer error: it panics with a [*CreditError] and leaves
// the ledger as it was.
//
// A Credit is pure bookkeeping: it has no lock and starts no goroutine. Whoever
// shares one between goroutines guards it. Its zero value has no bound and
// grants nothing: use [NewCredit].
type Credit struct {
	bound    int64
	reserved int64
	taken    int64
	// overdraft is how far above bound the ledger may be, because of one
	// ReserveAlone. It only shrinks, with each Cancel and Return.
	overdraft int64
}

// CreditError is what a [Credit] panics with: the transition that was refused
// and the ledger as it was before it.
type CreditError struct {
	// Op is the transition, such as "Return".
	Op string
	// N is how much the transition was to move.
	N int64
	// Reason says which rule it would have broken.
	Reason string
	// Bound, Reserved, Taken and Overdraft are the ledger's values.
	Bound, Reserved, Taken, Overdraft int64
}

// Error names the transition, the broken rule and every value of the ledger.
func (e *CreditError) Error() string {
	return fmt.Sprintf("stage: credit: %s(%d): %s (bound %d, reserved %d, taken %d, overdraft %d)",
		e.Op, e.N, e.Reason, e.Bound, e.Reserved, e.Taken, e.Overdraft)
}

// NewCredit returns a ledger with everything free. It panics with a
// [*CreditError] if bound is less than 1, as such a ledger could grant nothing.
func NewCredit(bound int64) *Credit {
	c := &Credit{bound: bound}
	if bound < 1 {
		c.refuse("NewCredit", bound, "bound is less than 1")
	}
	return c
}

// Bound returns the most that may be reserved and taken together.
func (c *Credit) Bound() int64 { return c.bound }

// Free returns bound - reserved - taken. It is negative during an overdraft.
func (c *Credit) Free() int64 { return c.bound - c.reserved - c.taken }

// Reserved returns what was asked for and has not arrived.
func (c *Credit) Reserved() int64 { return c.reserved }

// Taken returns what has arrived and is not settled.
func (c *Credit) Taken() int64 { return c.taken }

// Reserve moves up to n from free to reserved and returns how much it moved,
// which is 0 if nothing is free. It panics if n is negative.
func (c *Credit) Reserve(n int64) int64 {
	c.move("Reserve", n)
	granted := min(n, max(c.Free(), 0))
	c.reserved += granted
	c.check("Reserve", n)
	return granted
}

// ReserveAlone reserves all of n, even if n is above the bound, provided that
// nothing is reserved or taken, and tells whether it did. It is for the one
// event that is larger than the whole bound and would otherwise never pass.
// Until the ledger is back within its bound, nothing else is granted. It panics
// if n is negative.
func (c *Credit) ReserveAlone(n int64) bool {
	c.move("ReserveAlone", n)
	if c.reserved != 0 || c.taken != 0 {
		return false
	}
	c.reserved = n
	c.overdraft = max(n-c.bound, 0)
	c.check("ReserveAlone", n)
	return true
}

// Take moves n from reserved to taken: what was asked for arrived. It panics if
// n is negative or more than is reserved.
func (c *Credit) Take(n int64) {
	c.move("Take", n)
	if n > c.reserved {
		c.refuse("Take", n, "more than is reserved")
	}
	c.reserved -= n
	c.taken += n
	c.check("Take", n)
}

// Cancel moves n from reserved to free: an ask ended short. It panics if n is
// negative or more than is reserved.
func (c *Credit) Cancel(n int64) {
	c.move("Cancel", n)
	if n > c.reserved {
		c.refuse("Cancel", n, "more than is reserved")
	}
	c.reserved -= n
	c.repay()
	c.check("Cancel", n)
}

// Return moves n from taken to free: what arrived is settled. It panics if n is
// negative or more than is taken.
func (c *Credit) Return(n int64) {
	c.move("Return", n)
	if n > c.taken {
		c.refuse("Return", n, "more than is taken")
	}
	c.taken -= n
	c.repay()
	c.check("Return", n)
}

// move refuses a negative n: it would be another transition in disguise.
func (c *Credit) move(op string, n int64) {
	if n < 0 {
		c.refuse(op, n, "negative")
	}
}

// repay shrinks the overdraft to what is still above the bound, so that what
// came back cannot be overdrawn a second time.
func (c *Credit) repay() {
	if c.overdraft > 0 {
		c.overdraft = max(c.reserved+c.taken-c.bound, 0)
	}
}

// check asserts the invariant after a transition. The transitions keep it by
// construction, so a failure here means that the ledger itself was corrupted,
// by a data race for example.
func (c *Credit) check(op string, n int64) {
	if c.reserved < 0 || c.taken < 0 || c.Free() < -c.overdraft {
		c.refuse(op, n, "invariant broken")
	}
}

func (c *Credit) refuse(op string, n int64, reason string) {
	panic(&CreditError{
		Op: op, N: n, Reason: reason,
		Bound: c.bound, Reserved: c.reserved, Taken: c.taken, Overdraft: c.overdraft,
	})
}
