package kafka

import (
	"encoding/binary"
	"math"
	"time"
)

// marks are what a commit tells the partition's next owner so that a message that
// kills its process is found, and tried no more often than its policy allows. They
// are comparable. An ownership begins with those that it finds (closed when there
// are none) as this table says:
//
//	found                        starts  until               what it means
//	closed                       as was  as was              what ran has ended in good order
//	open, but of this producer   as was  as was              the group had lost it; a trial that ran does not count
//	open, starts = 0             1       as was              a crash, or a member that the group lost
//	open, starts > 0, no until   + 1     reach, or a stride  and the second one before the goal
//	open, until                  + 1     as was              and the trial, if one ran, counts
//
// They change in commits that are durable before what follows them happens:
//
//	before the first message is handed out     open
//	starts > 0, before the offset reach        reach moves up by a stride
//	until, before each message                 trial, attempt, running
//	others wait too long for the trial         no until, and the trial that ran did not count
//	the prefix has passed the trial            no trial
//	the prefix has reached until               nothing is suspected any more
//	no until, the prefix has reached the goal  the same
//	the ownership ends in good order           closed, and the trial that ran did not count
type marks struct {
	// closed says that nothing runs to which a crash could be due: the ownership
	// has ended in good order, or has handed out nothing.
	closed bool
	// starts counts the ownerships that have found open marks, until the prefix
	// reaches goal, a window above where the first of them began: what was handed out
	// when it was left open lies below.
	starts int32
	goal   int64
	// reach is the offset at and above which nothing was handed out since starts
	// is not 0.
	reach int64
	// until is the end of the offsets that are tried one at a time, 0 for none.
	until int64
	// attempt counts attempts at the offset trial that were begun alone: 0 says
	// that there is no trial. running says that the last one goes on.
	trial   int64
	attempt int32
	running bool
	// lost are who made the latest of those attempts that counted, which is all
	// but one that goes on: see vouched.
	lost [mostLost]writer
}

// writer is a producer, by a number drawn at random, in a generation of its group.
type writer struct {
	id         uint64
	generation int32
}

const (
	// mostCounted bounds the counts in marks.
	mostCounted = 1 << 20
	// mostLost is how many attempts are remembered by who made them.
	mostLost = 8
	// stride is how far beyond a message the reach goes. What was handed out below
	// it is all that is tried one at a time later.
	stride = 128
)

// inherited is what an ownership makes of the marks m that by has left, which is
// not this producer, at a committed offset.
func (m marks) inherited(by writer, base, window int64) marks {
	if !m.closed {
		m.starts = min(m.starts+1, mostCounted)
		if m.starts == 1 {
			m.goal = base + window
		}
		if m.starts > 1 && m.until == 0 {
			if m.until = m.reach; m.until <= base {
				m.until = base + stride
			}
			m.reach = 0
		}
		if m.running {
			copy(m.lost[1:], m.lost[:])
			m.lost[0] = by
		}
	}
	m.closed, m.running = true, false
	return m
}

// vouched is m without those attempts of which alive says that who made them has
// been seen in a later generation: it had lost its group, and did not die.
func (m marks) vouched(alive func(writer) bool) marks {
	kept := 0
	for _, w := range m.lost {
		switch {
		case w == writer{}:
		case alive(w):
			m.attempt--
		default:
			m.lost[kept] = w
			kept++
		}
	}
	clear(m.lost[kept:])
	if m.attempt <= 0 {
		m = m.untried()
	}
	return m
}

// within is m when the log ended at end once the last process had died: it had handed
// out nothing above.
func (m marks) within(end int64) marks {
	if m.starts > 0 {
		m.goal = min(m.goal, end)
	}
	if m.until > 0 {
		m.until = min(m.until, end)
	}
	return m
}

// untried is m without a trial.
func (m marks) untried() marks {
	m.trial, m.attempt, m.running, m.lost = 0, 0, false, [mostLost]writer{}
	return m
}

// settled is m once the prefix has come to next.
func (m marks) settled(next int64) marks {
	if m.trial < next {
		m = m.untried()
	}
	if m.until > 0 && m.until <= next || m.until == 0 && m.goal <= next {
		m.starts, m.goal, m.reach, m.until = 0, 0, 0, 0
	}
	return m
}

// wanting is m when the message at offset is to be handed out, and nothing below
// until is unsettled if there is such.
func (m marks) wanting(offset int64) marks {
	m.closed = false
	switch {
	case m.until > offset:
		if m.trial != offset {
			m = m.untried()
			m.trial = offset
		}
		if !m.running {
			m.attempt, m.running = min(m.attempt+1, mostCounted), true
		}
	case m.until > 0: // there is nothing left below it
		m = marks{}
	case m.starts > 0 && m.reach <= offset:
		m.reach = offset + stride
	}
	return m
}

// allows is the offset below which messages may be handed out once m is durable.
func (m marks) allows() int64 {
	switch {
	case m.closed, m.until > 0 && !m.running:
		return math.MinInt64
	case m.until > 0:
		return m.trial + 1
	case m.starts > 0:
		return m.reach
	}
	return math.MaxInt64
}

// ended is m when the ownership ends in good order.
func (m marks) ended() marks {
	m = m.rested()
	m.closed = true
	return m
}

// rested is m when the trial does not go on, without having settled: that attempt
// does not count.
func (m marks) rested() marks {
	if m.running {
		m.attempt, m.running = m.attempt-1, false
		if m.attempt == 0 {
			m = m.untried()
		}
	}
	return m
}

// resigned is m when nothing is tried any more, until somebody finds it open.
func (m marks) resigned() marks {
	m = m.rested()
	m.until, m.reach = 0, 0
	return m
}

// patience is how long others wait for a trial.
func (m marks) patience() time.Duration {
	return trialPatience << min(max(m.starts-2, 0), 6)
}

func (m marks) flags() (flags byte) {
	if m.closed {
		flags |= flagClosed
	}
	if m.running {
		flags |= flagRunning
	}
	m.closed, m.running = false, false
	if m != (marks{}) {
		flags |= flagSuspect
	}
	return flags
}

// append writes what flags does not say, if there is any, as uvarints: starts;
// until, reach and goal, less the base, or 0; attempt, and trial less the base; how many
// are lost, and these.
func (m marks) append(raw []byte, base int64) []byte {
	if m.flags()&flagSuspect == 0 {
		return raw
	}
	raw = binary.AppendUvarint(raw, uint64(m.starts))
	for _, offset := range []int64{m.until, m.reach, m.goal} {
		raw = binary.AppendUvarint(raw, uint64(max(offset-base, 0)))
	}
	raw = binary.AppendUvarint(raw, uint64(m.attempt))
	raw = binary.AppendUvarint(raw, uint64(max(m.trial-base, 0)))
	n := 0
	for n < mostLost && m.lost[n] != (writer{}) {
		n++
	}
	raw = append(raw, byte(n))
	for _, w := range m.lost[:n] {
		raw = w.append(raw)
	}
	return raw
}

func (w writer) append(raw []byte) []byte {
	raw = binary.BigEndian.AppendUint64(raw, w.id)
	return binary.AppendUvarint(raw, uint64(max(w.generation, 0)))
}

func (r *noteReader) writer() (w writer) {
	if id := r.take(8); id != nil {
		w.id = binary.BigEndian.Uint64(id)
	}
	w.generation = int32(min(r.uvarint(), math.MaxInt32))
	return w
}

// marks reads what append wrote, and flags says.
func (r *noteReader) marks(flags byte, base int64) marks {
	m := marks{closed: flags&flagClosed != 0, running: flags&flagRunning != 0}
	if flags&flagSuspect == 0 {
		r.bad = r.bad || m.running
		return m
	}
	m.starts = int32(min(r.uvarint(), mostCounted))
	m.until, m.reach, m.goal = r.above(base), r.above(base), r.above(base)
	m.attempt = int32(min(r.uvarint(), mostCounted))
	if trial := r.uvarint(); m.attempt > 0 {
		m.trial = r.add(base, trial)
	}
	n := int(r.byte())
	r.bad = r.bad || n > mostLost || m.running && m.attempt == 0
	for i := 0; i < n && !r.bad; i++ {
		m.lost[i] = r.writer()
	}
	return m
}

// above is an offset that was written less base, 0 for none.
func (r *noteReader) above(base int64) int64 {
	if d := r.uvarint(); d > 0 {
		return r.add(base, d)
	}
	return 0
}
