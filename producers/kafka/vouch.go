package kafka

// A member that the group loses, as its link or its host is too slow, leaves its
// marks as a crash does. When a message that it tried alone is counted against its
// policy, the next owners look whether it lives:
//
//  1. A tries a message alone, and the group loses A. B finds that the trial runs,
//     counts it as an attempt, and remembers A and its generation.
//  2. A comes back, into a later generation. Since it left a trial behind it
//     commits at once where it owns something, although nothing has settled: each
//     note says who wrote it, and in which generation.
//  3. C, the next owner, or B in its next generation, sees that note, and the
//     attempt does not count any more. If it is A itself, it knows without.
//
// So an attempt counts for good only of a process that was not seen again.

// vouch looks for signs of life, if attempts at a message of this session's
// partitions were counted: in all notes of the group. Nobody else holds what it
// writes yet.
func (s *session) vouch(offsets map[topicPartition]committedOffset) error {
	counted := false
	for _, c := range offsets {
		n, err := decodeNote(c.metadata)
		counted = counted || err == nil && n.marks.attempt > 0
	}
	if !counted {
		return nil
	}
	var all []topicPartition
	for _, topic := range s.cfg.Topics {
		all = append(all, s.producer.partitionsOf(topic)...)
	}
	notes, err := s.cluster.committed(all)
	if err != nil {
		return err
	}
	seen := map[uint64]int32{}
	for _, c := range notes {
		if n, err := decodeNote(c.metadata); err == nil {
			seen[n.by.id] = max(seen[n.by.id], n.by.generation)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = seen
	return nil
}

// lives says whether w is this producer, or was seen in a later generation. Callers
// hold mu.
func (s *session) lives(w writer) bool {
	return w.id == s.producer.id || s.seen[w.id] > w.generation
}

// accused notes whether this session leaves a trial behind that looks as if it had
// killed its process.
func (s *session) accused() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.parts {
		if p.told.running {
			s.producer.accused.Store(true)
		}
	}
}

// vouchFor makes the first commit of p a sign of life, if one may be missed.
// Callers hold mu.
func (s *session) vouchFor(p *partition) {
	if s.producer.accused.Load() {
		p.own.pin = true
		kick(s.commitKick)
	}
}
