package kafka

import (
	"math"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// trialPatience is how long other partitions wait for a message that is tried
// alone, and a trial for what other partitions have handed out, at first; with each
// start it doubles, up to 64 times. Then the ownership tries no more: a crash could
// be due to another message.
const trialPatience = time.Minute

// trial is what a session tries alone, and since when.
type trial struct {
	part   *partition // nil for nothing
	offset int64
	since  time.Time
	// loud is the partition for which all others are told to bring what they have
	// to its end, nil when none are.
	loud *partition
}

// writer is who writes the notes of s.
func (s *session) writer() writer {
	return writer{s.producer.id, s.member.generation}
}

// inherit makes of what a note says the marks that p begins with at next; n is nil
// when there is none. Callers hold mu.
func (s *session) inherit(p *partition, next int64, n *note) {
	p.forget()
	if n != nil {
		m := n.marks
		if n.by.id == s.producer.id {
			m = m.ended() // the group had lost this member, which lives
		}
		p.marks = m.inherited(n.by, next, s.window).vouched(s.lives).settled(next)
		p.told, p.trialEpoch = p.marks, n.epoch
	}
	if p.marks.until > 0 {
		s.producer.count.suspects.Add(1)
		s.log.Warn("kafka: a message may have ended its process: messages are tried one at a time", "partition", p.name.String(),
			"from", next, "until", p.marks.until, "starts", p.marks.starts, "offset", p.marks.trial, "attempts", p.marks.attempt)
	}
}

// forget makes the marks of p those of a partition of which nothing is known.
// Callers hold mu.
func (p *partition) forget() {
	p.marks = marks{closed: true}
	p.told, p.asked, p.trialEpoch = p.marks, false, -1
}

// alone is the only partition that may hand out now, nil for all; none says that
// nobody may before other messages have settled. A message that is
// tried runs alone in its member, so that a crash is its doing:
//
//  1. A partition with marks.until has something to hand out: nobody else hands
//     out any more, and open batches close.
//  2. All that was handed out has settled: its message is looked at, and the
//     attempt goes into a commit.
//  3. The commit is durable: the message is handed out.
//  4. It settles: the next commit says so, along with the next attempt. While the
//     durable marks say that a trial runs nobody else hands out.
//  5. It takes longer than the others have patience for: the attempt is taken back,
//     and they go on.
//
// Callers hold mu.
func (s *session) alone() (only *partition, none bool) {
	running := false
	for i := range s.parts {
		p := s.parts[(s.rover+i)%len(s.parts)]
		if p.own == nil || p.phase == phaseStopped {
			continue
		}
		if p.told.running && p.marks.until > 0 || p.asked && p.marks.running {
			only, running = p, true
			break
		}
		if only == nil && p.marks.until > 0 && p.phase == phaseFetching && len(p.segments) > 0 {
			only = p
		}
	}
	if only == nil {
		s.hush(nil)
		s.trial = trial{}
		return nil, false
	}
	now := time.Now()
	if s.trial.part != only || s.trial.offset != only.marks.trial {
		s.trial.part, s.trial.offset, s.trial.since = only, only.marks.trial, now
		kick(s.commitKick) // see trying
	}
	none = !running && s.others(only)
	if now.Sub(s.trial.since) > only.marks.patience() && (none || s.held(only)) {
		s.log.Warn("kafka: messages are no longer tried one at a time, as others wait", "partition", only.name.String(), "offset", only.marks.trial)
		only.marks = only.marks.resigned()
		kick(s.commitKick)
		s.hush(nil)
		s.trial = trial{}
		return nil, false
	}
	s.hush(only)
	return only, none
}

// held says whether a partition other than p has something to hand out. Callers hold
// mu.
func (s *session) held(p *partition) bool {
	for _, other := range s.parts {
		if other != p && other.phase == phaseFetching && len(other.segments) > 0 {
			return true
		}
	}
	return false
}

// clip ends what is suspected where the log ended when this ownership had its first
// answer: nobody has handed out before what came since. Callers hold mu.
func (p *partition) clip() {
	if p.clipped {
		return
	}
	p.clipped = true
	p.marks = p.marks.within(p.highWatermark).settled(p.own.ledger.Next())
}

// hush makes all partitions but one count as full, so that the pipeline closes the
// batches that wait for more of them; nil ends that. Callers hold mu.
func (s *session) hush(but *partition) {
	if s.trial.loud == but {
		return
	}
	s.trial.loud = but
	for _, p := range s.parts {
		if p.own == nil {
			continue
		}
		limit := s.share
		if but != nil && but != p {
			limit = 1
		}
		p.own.ref.SetLimit(limit)
	}
}

// trying says whether a message is tried alone. Fetch looks again then, as time may
// have been what it waited for.
func (s *session) trying() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trial.part == nil {
		return false
	}
	s.producer.wake()
	return true
}

// others says whether a partition other than p has handed out what has not settled.
// Callers hold mu.
func (s *session) others(p *partition) bool {
	for _, other := range s.parts {
		if other != p && other.own != nil && other.own.ref.Unsettled() > 0 {
			return true
		}
	}
	return false
}

// ask changes the marks of part so that the message at offset, of a leader epoch,
// may be handed out, once they are durable. Callers hold mu.
func (s *session) ask(part *partition, offset int64, epoch int32) {
	if part.marks.until > 0 && part.own.ledger.Unsettled() > 0 {
		return // the trial that runs comes first
	}
	part.marks = part.marks.settled(part.own.ledger.Next()).wanting(offset)
	part.trialEpoch = epoch
	if part.marks == part.told { // a commit was confirmed while the message was looked for
		s.producer.wake()
		return
	}
	part.asked = true
	kick(s.commitKick)
}

// unmarked says whether p hands out without regard to marks: because the broker
// takes none; or because commits fail and p is no suspect, which goes on within its
// window, and is told to be open as soon as they succeed. Callers hold mu.
func (s *session) unmarked(p *partition) bool {
	return s.mostNote == 0 || s.commitFailures > 0 && p.marks.starts == 0 && p.marks.until == 0
}

// waits says whether p may hand out nothing at present: the marks that allow it are
// not durable yet, or the one message that is tried has not settled. Callers hold
// mu.
func (s *session) waits(p *partition) bool {
	if s.unmarked(p) {
		return false
	}
	return p.asked || p.marks.until > 0 && p.own.ledger.Unsettled() > 0
}

// allowed is the offset below which p may hand out. Callers hold mu.
func (s *session) allowed(p *partition) int64 {
	if s.unmarked(p) {
		return math.MaxInt64
	}
	return p.told.allows()
}

// attempts tells a message that is tried which attempt at it this is.
func (p *partition) attempts(messages []*broadway.Message) {
	if p.marks.attempt == 0 {
		return
	}
	for _, m := range messages {
		if m.Seq() == p.marks.trial {
			m.Attempt = int(p.marks.attempt)
			m.BatchMode = broadway.Flush // nothing else comes to fill its batch
		}
	}
}

// tidy brings the marks of p up to what has become of its messages, and to the end
// of its ownership if that closes; or to none, if the broker takes no notes. Callers
// hold mu.
func (p *partition) tidy(closing, notes bool) {
	if !notes {
		p.forget()
		return
	}
	p.marks = p.marks.settled(p.own.ledger.Next())
	switch {
	case closing:
		p.marks = p.marks.ended()
	case p.phase == phaseStopped && p.own.ref.Unsettled() == 0:
		p.marks = p.marks.rested()
	}
}
