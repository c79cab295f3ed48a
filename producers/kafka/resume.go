package kafka

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/gobroadway/gobroadway/acknowledgers"
)

// confirmTries is how often a leader that answers with errors of the connection is
// asked whether a note is about its log.
const confirmTries = 5

// located is a partition whose note is to be confirmed.
type located struct {
	part  *partition
	from  committedOffset
	note  *note
	tries int // questions that were not answered
	// kept is what this process keeps of the partition from before, nil for nothing;
	// note is about that, then.
	kept  *ownership
	known bool // whether there is a commit
}

// resumeLoop finds the committed offsets, and takes each partition to its own, or
// makes it ask for its start.
//
// A note counts only when it is about this topic and this log: the topic's id must
// be the same, and the leader must still have the epoch up to the note's last
// offset. Otherwise it is dropped. Nothing of a partition is fetched before that is
// known, as the first message already may be one to leave out.
func (s *session) resumeLoop() {
	pending := s.locate()
	for attempt := 1; len(pending) > 0; attempt++ {
		pending = s.confirmNotes(pending)
		if len(pending) > 0 && !s.pause(min(attempt, 3)) {
			return
		}
	}
}

// locate begins with all partitions but those that it returns.
func (s *session) locate() (pending []*located) {
	names := make([]topicPartition, 0, len(s.parts))
	for _, p := range s.parts {
		names = append(names, p.name)
	}
	for attempt := 1; len(names) > 0; attempt++ {
		offsets, err := s.cluster.committed(names)
		if err == nil {
			err = s.vouch(offsets)
		}
		s.mu.Lock()
		s.commitErr = err
		if err == nil && !s.ended {
			for _, p := range s.parts {
				c, known := offsets[p.name]
				if l := s.begin(p, c, known); l != nil {
					pending = append(pending, l)
				}
			}
			kick(s.fetchKick)
		}
		s.mu.Unlock()
		if err == nil || !s.pause(attempt) {
			break
		}
	}
	return pending
}

// begin takes p to its committed offset, or makes it ask for its start, unless it
// has a note that is to be confirmed first, or returns. Callers hold mu.
func (s *session) begin(p *partition, c committedOffset, known bool) *located {
	if l := s.returns(p, c, known); l != nil {
		return l
	}
	switch {
	case !known:
		s.seek(p)
		return nil
	case c.metadata == "":
	case foreign(c.metadata):
		s.producer.count.foreign.Add(1)
		if s.cfg.ForeignMetadata == FailOnForeign {
			err := fmt.Errorf("kafka: %s: the commit at %d carries metadata of another program", p.name, c.next)
			s.halt(p, err)
			s.producer.fail(err)
			return nil
		}
		s.log.Warn("kafka: metadata of another program will be overwritten", "partition", p.name.String(), "offset", c.next)
	default:
		n, err := decodeNote(c.metadata)
		if err == nil && n.base == c.next {
			return &located{part: p, from: c, note: n}
		}
		s.doubt(p, c.next, cmp.Or(err, errBase))
	}
	s.open(p, c, nil)
	return nil
}

// Why a note is dropped.
var (
	errBase  = errors.New("kafka: it belongs to another offset")
	errTopic = errors.New("kafka: the topic's id is not known")
	errEpoch = errors.New("kafka: the leader does not have that part of the log")
)

// doubt counts a note that is dropped. Callers hold mu.
func (s *session) doubt(p *partition, offset int64, why error) {
	s.producer.count.notesDoubted.Add(1)
	s.log.Warn("kafka: what has settled above the commit is not known and comes again", "partition", p.name.String(), "offset", offset, "reason", why)
}

// seek makes p ask for its start. Callers hold mu.
func (s *session) seek(p *partition) {
	p.phase, p.timestamp = phaseResolving, timestampEarliest
	switch s.cfg.StartAt.kind {
	case startLatest:
		p.timestamp = timestampLatest
	case startTime:
		p.timestamp = s.cfg.StartAt.at.UnixMilli()
	}
}

// open begins the first epoch of p at a committed offset or at its start, with
// what its note says, nil for none. Callers hold mu.
func (s *session) open(p *partition, from committedOffset, n *note) {
	next := from.next
	var settled []acknowledgers.Span
	if n != nil {
		settled = n.spans
	}
	s.inherit(p, next, n)
	p.own = s.newOwnership(p, acknowledgers.ResumeOffsets(next, settled))
	s.vouchFor(p)
	p.own.inherited = -1
	if n != nil {
		p.own.inherited = n.epoch
	}
	p.own.durable = true
	if from.epoch >= 0 {
		p.own.epochs = []epochStart{{next - 1, from.epoch}}
	}
	p.phase, p.fetchOffset, p.fetchEpoch = phaseFetching, next, from.epoch
	kick(s.fetchKick)
}

// confirmNotes opens those partitions whose notes are confirmed, or dropped, and
// returns the others.
func (s *session) confirmNotes(pending []*located) (rest []*located) {
	byNode := map[int32][]*located{}
	s.mu.Lock()
	for _, l := range pending {
		switch node, wait := s.checkTopic(l); {
		case wait:
			rest = append(rest, l)
		case node != anyBroker:
			byNode[node] = append(byNode[node], l)
		}
	}
	s.mu.Unlock()
	for node, asked := range byNode {
		rest = append(rest, s.confirmEpochs(node, asked)...)
	}
	return rest
}

// checkTopic compares the topic's id, and opens the partition of l if that decides
// it. Otherwise it says which leader to ask, or to wait until there is one. Callers
// hold mu.
func (s *session) checkTopic(l *located) (node int32, wait bool) {
	p := l.part
	if s.ended || p.own != nil {
		return anyBroker, false
	}
	id, described := s.ids[p.name.topic]
	none := [16]byte{}
	switch {
	case !described:
		return anyBroker, true
	case l.kept != nil && (id == none || id != l.note.topic):
		return anyBroker, s.renounce(l)
	case id == none || l.note.topic == none:
		if len(l.note.spans) > 0 || id != l.note.topic {
			s.doubt(p, l.from.next, errTopic)
			l.note = nil
		}
		s.open(p, l.from, l.note)
	case id != l.note.topic:
		s.producer.count.recreated.Add(1)
		s.log.Warn("kafka: the topic was deleted and created anew since the last commit, which is void", "partition", p.name.String(), "offset", l.from.next)
		s.seek(p)
		p.renewed = true
		kick(s.fetchKick)
	case l.note.end() == 0:
		s.open(p, l.from, l.note)
	case p.leader.err != nil || p.leader.node == anyBroker:
		kick(s.watchKick)
		return anyBroker, true
	default:
		return p.leader.node, false
	}
	return anyBroker, false
}

// confirmEpochs asks one leader whether its log is the one that the notes are
// about, and opens the partitions. It returns those that are to be asked for again.
func (s *session) confirmEpochs(node int32, asked []*located) (rest []*located) {
	queries := make([]epochQuery, 0, len(asked))
	s.mu.Lock()
	for _, l := range asked {
		queries = append(queries, epochQuery{l.part.name, l.part.leader.epoch, l.note.epoch})
	}
	s.mu.Unlock()
	ends, err := s.cluster.epochEnds(node, queries)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range asked {
		end, told := ends[l.part.name]
		if !told {
			l.tries++
			end.epoch = -1
		}
		switch {
		case s.ended:
		case !told && l.tries < confirmTries, told && end.code.moved():
			kick(s.watchKick)
			rest = append(rest, l)
		case l.kept != nil && end.covers(l.note):
			s.takeOver(l)
		case l.kept != nil:
			if s.renounce(l) {
				rest = append(rest, l)
			}
		case !end.covers(l.note):
			s.doubt(l.part, l.from.next, cmp.Or(err, errEpoch))
			s.open(l.part, l.from, nil)
		default:
			s.open(l.part, l.from, l.note)
		}
	}
	return rest
}

// covers says whether the log holds the epoch of n up to the last offset that n is about.
func (e epochEnd) covers(n *note) bool {
	return e.code == codeNone && n.epoch >= 0 && e.epoch == n.epoch && e.end >= n.end()
}
