package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
)

// Ack settles messages of one epoch: see [broadway.Acknowledger]. It returns at
// once; commits follow by count and time. Failed messages count as settled, as
// their policy has dealt with them, except those with ActionStopPartition, which
// stay unsettled and stop their partition, and those with ActionStopPipeline.
func (p *Producer) Ack(_ context.Context, ref *broadway.AckRef, ok, failed []*broadway.Message) error {
	own, mine := ref.Data().(*ownership)
	if !mine {
		return fmt.Errorf("kafka: asked to acknowledge a message of %T", ref.Data())
	}
	s := own.lock()
	s.settle(own, ok, failed)
	waits := s.stuck || own.part.suspect()
	s.mu.Unlock()
	if waits {
		p.wake()
	}
	return nil
}

// Release takes back messages that were not processed: see [broadway.Releaser].
// While their epoch lives, the partition begins again with its oldest unsettled
// message, after a pause; otherwise they stay unsettled.
func (p *Producer) Release(_ context.Context, ref *broadway.AckRef, messages []*broadway.Message) error {
	own, mine := ref.Data().(*ownership)
	if !mine {
		return fmt.Errorf("kafka: asked to release a message of %T", ref.Data())
	}
	if len(messages) > 0 && !p.isDraining() {
		s := own.lock()
		if own.part.own == own {
			s.rewind(own.part, nil)
		}
		s.mu.Unlock()
	}
	p.wake()
	return nil
}

// settle marks messages in the ledger. Callers hold mu.
func (s *session) settle(own *ownership, ok, failed []*broadway.Message) {
	mark(own.ledger, ok)
	var done []*broadway.Message
	for _, m := range failed {
		switch m.Action() {
		case broadway.ActionStopPartition:
			if own.part.own == own && own.part.phase != phaseStopped {
				s.log.Error("kafka: partition stopped by a failed message", "message", m.ID(), "error", m.Err())
				s.halt(own.part, fmt.Errorf("kafka: %s: stopped at offset %d: %w", own.part.name, m.Seq(), m.Err()))
			}
		case broadway.ActionStopPipeline:
		default:
			done = append(done, m)
		}
	}
	mark(own.ledger, done)
	quarter := s.window / 4
	if (own.ledger.Settled()-own.told >= quarter || own.part.suspect()) && own.dirty() || own.ledger.Uncommitted() >= s.window {
		kick(s.commitKick)
	}
	if s.tight {
		kick(s.fetchKick)
	}
}

// suspect says that each message of p may be told of by itself: see trial.
func (p *partition) suspect() bool { return p.marks.starts > 0 || p.marks.until > 0 }

// mark settles messages, whole runs at a time.
func mark(ledger *acknowledgers.Offsets, messages []*broadway.Message) {
	for i := 0; i < len(messages); {
		first, n := messages[i].Seq(), int64(1)
		for i++; i < len(messages) && messages[i].Seq() == first+n; i++ {
			n++
		}
		ledger.Settle(first, n)
	}
}

// commitLoop is the one committer of its generation: one request at a time, each
// with the newest offsets of all partitions. While the session drains it also
// gives signs of life.
func (s *session) commitLoop() {
	defer close(s.flushed)
	timer := time.NewTimer(s.cfg.CommitInterval)
	defer timer.Stop()
	draining, alive := s.draining, false
	wanted := s.commitKick // nil while it backs off
	for {
		select {
		case <-s.finishing:
			s.flush()
			return
		case <-draining:
			draining, alive = nil, true
		case <-wanted:
		case <-timer.C:
		}
		failures, sent := s.commit()
		if alive && !sent {
			s.signOfLife()
		}
		wait := s.cfg.CommitInterval
		if alive {
			wait = min(wait, s.cfg.SessionTimeout/3, s.cfg.HeartbeatInterval)
		}
		if s.trying() {
			wait = min(wait, time.Second)
		}
		wanted = s.commitKick
		if failures > 0 {
			wanted, wait = nil, backoff(failures, 2*time.Second)
		}
		timer.Reset(wait)
	}
}

// flush commits until there is nothing left, it cannot be any more, or run has no
// time left.
func (s *session) flush() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	for attempt := 1; ; attempt++ {
		if failures, _ := s.commit(); failures == 0 || s.wire.network.isDown() {
			return
		}
		timer := time.NewTimer(backoff(attempt, time.Second))
		select {
		case <-timer.C:
		case <-s.stop:
			timer.Stop()
			return
		}
	}
}

// commit makes the settled prefixes durable, with notes of what has settled above
// them. It says how often in a row it has failed, and whether anything was sent.
func (s *session) commit() (failures int, sent bool) {
	s.mu.Lock()
	var due []commitment
	for _, p := range s.parts {
		if p.own == nil || s.fenced != nil {
			continue
		}
		if p.tidy(s.closing, s.mostNote > 0); p.own.dirty() {
			due = append(due, p.own.commitment(s.ids[p.name.topic], s.mostNote))
		}
	}
	for i := range due {
		// Of the topic as it was assigned: a commit by name could be taken for one
		// of a topic that was created anew.
		due[i].topicID = s.index[due[i].partition].topicID
	}
	s.mu.Unlock()
	if len(due) == 0 {
		return 0, false
	}
	codes, err := s.cluster.commit(s.member, due)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = s.confirm(due, codes)
	}
	s.producer.count.commits.Add(1)
	s.commitErr = err
	if err == nil {
		s.commitFailures = 0
	} else {
		s.commitFailures++
		s.producer.count.commitsFailed.Add(1)
		if loud(s.commitFailures) {
			s.log.Warn("kafka: commit failed", "error", err, "failures", s.commitFailures)
		}
	}
	if s.fenced != nil {
		return 0, true
	}
	s.producer.wake() // windows may have opened
	if s.tight {
		kick(s.fetchKick)
	}
	return s.commitFailures, true
}

// confirm takes over each partition's outcome, and returns an error when one is
// to be tried again. Callers hold mu.
func (s *session) confirm(due []commitment, codes map[topicPartition]code) (err error) {
	for _, d := range due {
		c, told := codes[d.partition]
		switch {
		case d.own.session.Load() != s:
			// The answer comes after the next session took it over, which has
			// found this commit or has not.
		case !told:
			err = fmt.Errorf("kafka: commit of %s: no answer", d.partition)
		case c == codeNone:
			d.own.committed(d)
		case c == codeMetadataTooLarge:
			s.shorten(len(d.metadata))
			s.log.Warn("kafka: the broker takes no such long metadata with a commit", "characters", len(d.metadata), "now", s.mostNote)
			err = fmt.Errorf("kafka: commit of %s: %w", d.partition, c)
		case c.fenced() || c == codeRebalanceInProgress:
			// The group has moved on. What this commit says is the next owner's
			// to find out: a commit on another generation could undo its work.
			err = fmt.Errorf("kafka: commit of %s: %w", d.partition, c)
			s.fence(err)
			return err
		default:
			err = fmt.Errorf("kafka: commit of %s: %w", d.partition, c)
		}
	}
	return err
}

// shorten makes notes shorter than one that the broker has refused: half of it, so
// that several in one commit count once. Callers hold mu.
func (s *session) shorten(refused int) {
	most := max(refused/2, leastNote)
	if refused <= leastNote {
		most = 0
	}
	s.mostNote = min(s.mostNote, most)
}

// signOfLife keeps the membership while the session drains, when there is nothing
// to commit. That the group rebalances is known, and no error.
func (s *session) signOfLife() {
	err := s.cluster.heartbeat(s.member)
	if c := codeOf(err); c.fenced() {
		s.mu.Lock()
		s.fence(fmt.Errorf("kafka: heartbeat: %w", err))
		s.mu.Unlock()
	}
}
