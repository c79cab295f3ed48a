package kafka

import "github.com/gobroadway/gobroadway/acknowledgers"

// Rebalances are eager: with each, every member gives up all that it has, and most
// of it comes back to it. What a handler holds longer than the drain waits, and what
// has settled without a durable commit (the group had thrown the member out, or the
// coordinator was away), is therefore not given up with the session, but kept until
// the next assignment is known:
//
//  1. The session ends. Its references have drained: the pipeline holds nothing of
//     them but what handlers run. Those with something left stay alive, in
//     [Producer.kept]; what settles still counts in their ledgers.
//  2. The next session drops what was not assigned to it.
//  3. A partition that has returned waits as those with a note do: the topic must
//     be the same, and its leader must have what was handed out. The group's commit
//     must say nothing that the ledger does not know, and nothing less than what
//     was durable: then nobody else has settled anything, or moved the commit.
//     Otherwise the kept epoch ends, and the partition begins at its commit.
//     What is tried one message at a time (see marks) is never kept.
//  4. The new session takes the ledger over, and commits what settles, within its own
//     generation. The partition begins anew, as after a release, once the last
//     handler of the old epoch has returned: order of keys holds over the return, and
//     what follows a message in its handler could not be committed before it anyway.

// shelve keeps of a session what is left of its epochs, and ends the others. It says
// how many messages run, and how many have settled without a durable commit.
func (p *Producer) shelve(s *session, owns []*ownership) (running, unsaid int64) {
	over := false
	select {
	case <-p.quit:
		over = true
	default:
	}
	for _, o := range owns {
		s.mu.Lock()
		late, more := int64(o.ref.Unsettled()), o.unsaid()
		keeps := !o.void && !over && late+more > 0 && o.part.marks.until == 0
		s.mu.Unlock()
		running += late
		unsaid += more
		if !keeps {
			p.give(o)
			continue
		}
		p.mu.Lock()
		p.kept[o.part.name] = o
		p.mu.Unlock()
	}
	return running, unsaid
}

// forfeit gives up what is kept and not assigned to s, all if that is nil.
func (p *Producer) forfeit(s *session) {
	p.mu.Lock()
	var lost []*ownership
	for name, o := range p.kept {
		if s == nil || s.index[name] == nil {
			delete(p.kept, name)
			lost = append(lost, o)
		}
	}
	p.mu.Unlock()
	for _, o := range lost {
		p.give(o)
	}
}

// give ends an epoch: what settles later is a no-op.
func (p *Producer) give(o *ownership) {
	o.ref.End()
	s := o.lock()
	defer s.mu.Unlock()
	p.count.abandoned.Add(int64(o.ref.Unsettled()))
	p.count.repeats.Add(o.unsaid())
}

// keeps is what is kept of a partition, nil for nothing.
func (p *Producer) keeps(name topicPartition) *ownership {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kept[name]
}

// unkeep takes o from what is kept.
func (p *Producer) unkeep(o *ownership) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, kept := range p.kept {
		if kept == o {
			delete(p.kept, name)
		}
	}
}

// returns is what is to be confirmed before p, of which something is kept, goes on
// where it was; nil when nothing is kept, or the group's commit is not as it was
// left. Callers hold mu.
func (s *session) returns(p *partition, c committedOffset, known bool) *located {
	kept := s.producer.keeps(p.name)
	if kept == nil {
		return nil
	}
	was := kept.lock()
	n, same := kept.reach(), kept.unchanged(c, known)
	was.mu.Unlock()
	if same {
		return &located{part: p, from: c, known: known, note: n, kept: kept}
	}
	s.log.Info("kafka: partition returned, and its commit was moved", "partition", p.name.String(), "offset", c.next)
	s.producer.unkeep(kept)
	s.producer.give(kept)
	return nil
}

// renounce gives up what is kept of a partition after all: it begins at its commit.
// It says whether something is to be confirmed still. Callers hold mu.
func (s *session) renounce(l *located) (pending bool) {
	s.log.Info("kafka: partition returned, and its log is not what was read", "partition", l.part.name.String(), "offset", l.from.next)
	s.producer.unkeep(l.kept)
	s.producer.give(l.kept)
	again := s.begin(l.part, l.from, l.known)
	if again != nil {
		*l = *again
	}
	return again != nil
}

// takeOver makes what is kept of a partition the session's own. Callers hold mu, to
// which that of the earlier session is taken: always the later one's first.
func (s *session) takeOver(l *located) {
	p, o := l.part, l.kept
	s.producer.unkeep(o)
	was := o.lock()
	o.part.own = nil
	p.topicID = o.part.topicID
	p.highWatermark, p.logStart = o.part.highWatermark, o.part.logStart
	o.part = p
	o.session.Store(s)
	was.mu.Unlock()
	n, err := decodeNote(l.from.metadata)
	if err != nil {
		n = nil
	}
	s.inherit(p, l.from.next, n) // somebody else may have begun and died meanwhile
	p.own, p.phase = o, phaseRewinding
	running, unsaid := o.ref.Unsettled(), o.unsaid()
	s.producer.count.kept.Add(int64(running) + unsaid)
	s.log.Info("kafka: partition returned, its work goes on", "partition", p.name.String(), "running", running, "uncommitted", unsaid)
	s.chores = append(s.chores, chore{part: p, own: o, again: true, returned: true})
	kick(s.tendKick)
	kick(s.commitKick)
}

// lock locks the session that o belongs to, which guards it, and returns it.
func (o *ownership) lock() *session {
	for {
		s := o.session.Load()
		s.mu.Lock()
		if o.session.Load() == s {
			return s
		}
		s.mu.Unlock() // it has changed hands meanwhile
	}
}

// unchanged says whether the group's commit is what o has left, or less recent by
// commits whose outcome is not known. Callers hold the mutex of o's session.
func (o *ownership) unchanged(c committedOffset, known bool) bool {
	switch {
	case !known:
		return !o.durable
	case c.metadata == "":
		return o.durable && c.next == o.ledger.Committed()
	}
	n, err := decodeNote(c.metadata)
	return err == nil && n.base == c.next && n.topic == o.part.topicID && o.ledger.Knows(c.next, n.spans)
}

// reach is a note about all that was handed out of o or has settled before. Callers
// hold the mutex of o's session.
func (o *ownership) reach() *note {
	end := o.beyond()
	return &note{
		topic: o.part.topicID, epoch: max(o.lastEpoch(), o.inherited),
		spans: []acknowledgers.Span{{First: end - 1, End: end}},
	}
}
