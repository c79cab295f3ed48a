package rabbitmq

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// TestTheGateHoldsTheReaderUp: it reads while less than the limit is unsettled,
// while it is told to, and once the connection is closed.
func TestTheGateHoldsTheReaderUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		changes := 0
		g := &gate{limit: 10}
		g.tell(func() { changes++ })
		c := &gatedConn{Conn: here, gate: g}
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
		c := &gatedConn{Conn: here, gate: g}
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
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
