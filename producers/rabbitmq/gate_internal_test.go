package rabbitmq

import (
	"errors"
	"math"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// TestTheGateHoldsTheReaderUp: it reads while less than the limit is unsettled,
// while it is told to, and once the connection is closed.
func TestTheGateHoldsTheReaderUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		changes := 0
		g := &gate{limit: 10}
		g.tell(func() { changes++ })
		c := &gatedConn{conn: here, gate: g}
		got := make(chan error, 1)
		read := func() { _, err := c.Read(make([]byte, 1)); got <- err }
		write := func() { _, _ = there.Write([]byte{1}) }
		held := func() bool {
			synctest.Wait()
			select {
			case err := <-got:
				got <- err
				return false
			default:
				return true
			}
		}
		next := func() {
			go read()
			go write()
		}
		g.add(9)
		if next(); held() || <-got != nil {
			t.Error("below the limit it was held up")
		}
		g.add(1)
		if next(); !held() || !g.waits() || changes != 1 {
			t.Errorf("at the limit it was not held up, or told nobody: %d", changes)
		}
		if g.add(5); !held() {
			t.Error("above the limit it was not held up")
		}
		if g.done(5); !held() {
			t.Error("at the limit again it was not held up")
		}
		if g.done(1); held() || <-got != nil || changes != 2 || g.waits() {
			t.Errorf("below the limit again it was held up, or told nobody: %d", changes)
		}
		g.add(100)
		next()
		if g.open(); held() || <-got != nil {
			t.Error("open, it was held up")
		}
		g.shut()
		if next(); !held() {
			t.Error("shut again, it was not held up")
		}
		if err := c.Close(); err != nil || held() {
			t.Errorf("the closing was not seen: %v", err)
		}
		<-got
		_ = there.Close()
	})
}

// TestTheDeadlineStartsWhenTheReaderMayRead: being held up for long is no sign of a
// dead broker, and silence after it is.
func TestTheDeadlineStartsWhenTheReaderMayRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		g := &gate{limit: 1}
		c := &gatedConn{conn: here, gate: g}
		if err := c.expect(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		g.add(1)
		got := make(chan error, 1)
		go func() { _, err := c.Read(make([]byte, 1)); got <- err }()
		time.Sleep(time.Hour)
		opened := time.Now()
		g.done(1)
		if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(opened) != 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(opened))
		}
		_, _ = here.Close(), there.Close()
	})
}

// TestTheDeadlineMovesWithWhatComes: however long things come, and however long the
// reader did something else, only silence ends the connection, and soon enough.
func TestTheDeadlineMovesWithWhatComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = 16 * time.Second
		here, there := net.Pipe()
		c := &gatedConn{conn: here, gate: new(gate)}
		if err := c.expect(patience); err != nil {
			t.Fatal(err)
		}
		go func() {
			for range 100 {
				time.Sleep(patience * 3 / 10)
				_, _ = there.Write([]byte{1})
			}
		}()
		b := make([]byte, 1)
		for i := range 100 {
			if _, err := c.Read(b); err != nil {
				t.Fatalf("byte %d: %v", i+1, err)
			}
		}
		time.Sleep(time.Hour)
		go func() { _, _ = there.Write(b) }()
		if _, err := c.Read(b); err != nil {
			t.Errorf("after another wait: %v", err)
		}
		last := time.Now()
		_, err := c.Read(b)
		if silent := time.Since(last); !errors.Is(err, os.ErrDeadlineExceeded) || silent < patience*15/16 || silent > patience {
			t.Errorf("%v after %v", err, silent)
		}
		_, _ = here.Close(), there.Close()
	})
}

// TestTheGateHasItsPartOfTheBound: also of one that is as large as a number.
func TestTheGateHasItsPartOfTheBound(t *testing.T) {
	for _, c := range []struct {
		bytes       int64
		share, most int
		want        int64
	}{
		{64 << 20, 100, 100, 64 << 20},
		{100, 1, 3, 33},
		{1, 1, 1000, 1},
		{math.MaxInt64, 1 << 24, 1 << 24, math.MaxInt64},
		{math.MaxInt64, 50, 100, math.MaxInt64/2 - 3},
	} {
		got := shareOf(broadway.Limits{MaxUnsettled: c.most, MaxUnsettledBytes: c.bytes, Share: c.share})
		if d := got - c.want; d < 0 || d > 3 {
			t.Errorf("%d of %d messages have %d of %d bytes, want %d", c.share, c.most, got, c.bytes, c.want)
		}
	}
}
