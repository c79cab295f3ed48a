package kafka

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
)

// trialSession is a session of two partitions with something to hand out, of which
// the first is to be tried one message at a time.
func trialSession() (s *session, tried, other *partition) {
	p := NewProducer(Config{Logger: slog.New(slog.DiscardHandler)})
	p.size(broadway.Limits{MaxUnsettled: 10})
	s = newSession(p, &kafkago.Generation{Assignments: map[string][]kafkago.PartitionAssignment{"t": {{ID: 0}, {ID: 1}}}})
	for _, part := range s.parts {
		part.own = s.newOwnership(part, acknowledgers.NewOffsets(0))
		part.phase, part.segments = phaseFetching, []*segment{{left: 1, expected: 1}}
		part.told = marks{}
	}
	tried, other = s.parts[0], s.parts[1]
	tried.marks = marks{starts: 2, goal: 1000, until: 100}
	tried.told = tried.marks
	return s, tried, other
}

// A message that is tried runs alone: it waits for what others have handed out, and
// they wait for it, but neither without end. Then a crash counts for nobody, until the
// next start.
func TestATrialIsAloneWithinPatience(t *testing.T) {
	for name, run := range map[string]bool{"it waits for others": false, "others wait for it": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, tried, other := trialSession()
				if run {
					s.ask(tried, 7, 0)
					tried.own.committed(tried.own.commitment([16]byte{}, mostNote))
					if !tried.told.running || tried.told.attempt != 1 {
						t.Fatalf("told %+v", tried.told)
					}
				} else {
					other.own.ref.Take(1)
				}
				for range 2 {
					if only, none := s.alone(); only != tried || none == run {
						t.Fatalf("alone is %v, none %v", only, none)
					}
					if other.own.ref.Room() > 1 {
						t.Error("the other has room")
					}
					time.Sleep(trialPatience)
				}
				time.Sleep(time.Second)
				if only, none := s.alone(); only != nil || none {
					t.Fatalf("alone is %v, none %v, after a minute", only, none)
				}
				if m := tried.marks; m.running || m.attempt != 0 || m.until != 0 || m.starts != 2 || m.goal != 1000 {
					t.Errorf("marks %+v, want none of a trial", m)
				}
				if other.own.ref.Room() < 4 {
					t.Error("the other has no room")
				}
				again := tried.marks.inherited(writer{1, 1}, 0, 1000)
				if again.until == 0 || again.patience() != 2*trialPatience {
					t.Errorf("the next start finds %+v", again)
				}
			})
		})
	}
}

// Who has nobody beside it tries for as long as it takes.
func TestATrialOfTheOnlyPartitionEndsWithItsMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, tried, other := trialSession()
		other.segments = nil
		s.ask(tried, 7, 0)
		tried.own.committed(tried.own.commitment([16]byte{}, mostNote))
		for range 10 {
			if only, none := s.alone(); only != tried || none {
				t.Fatalf("alone is %v, none %v", only, none)
			}
			time.Sleep(trialPatience)
		}
		if tried.marks.attempt != 1 || !tried.marks.running {
			t.Errorf("%+v", tried.marks)
		}
	})
}
