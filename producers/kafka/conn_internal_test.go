package kafka

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// TestLongPollsAreCutAlone: what else is under way goes on, and nothing new begins.
func TestLongPollsAreCutAlone(t *testing.T) {
	n := newNetwork(time.Minute)
	open := func(polls bool) (*conn, net.Conn) {
		ours, theirs := net.Pipe()
		c := &conn{Conn: ours, network: n}
		c.polling.Store(polls)
		n.conns[c] = struct{}{}
		return c, theirs
	}
	poll, _ := open(true)
	commit, broker := open(false)
	n.cutPolls()
	if _, err := poll.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the long poll: %v", err)
	}
	go func() { _, _ = broker.Write([]byte("answer")) }()
	if got, err := io.ReadAll(io.LimitReader(commit, 6)); string(got) != "answer" {
		t.Errorf("the commit: %q, %v", got, err)
	}
	if _, err := n.dial(t.Context(), "tcp", "127.0.0.1:1"); !errors.Is(err, errShut) {
		t.Errorf("a new connection: %v", err)
	}
	if err := errors.Join(poll.Close(), commit.Close()); err != nil {
		t.Error(err)
	}
	if !n.await(time.Minute) {
		t.Error("a connection is left")
	}
}
