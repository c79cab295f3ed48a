package kafka

// Answers of brokers are bounded by the budget of each, see broker; what batches
// decompress to is not, and each partition keeps its open batch until the last record
// of it is handed out. So their sum is bounded, over all partitions, by twice MaxBytes
// and one batch: that which was opened last.

// expanded is what the open batch of p takes, decompressed. It is for the goroutine
// that runs Fetch.
func (p *partition) expanded() int64 {
	if len(p.segments) == 0 {
		return 0
	}
	return p.segments[0].expanded
}

// mostExpanded is the sum at which no more batches are opened.
func (s *session) mostExpanded() int64 { return 2 * int64(s.cfg.MaxBytes) }

// affordable says which of the ready partitions may hand out, and what all open batches
// take. At the limit only those go on that have one open. When none of them is ready
// (they have no room, or somebody else's turn it is), what they hold is dropped, and
// fetched again: a partition that cannot go on must not keep the others from it. Callers
// hold mu.
func (s *session) affordable(ready []*partition) (able []*partition, sum int64) {
	for _, p := range s.parts {
		sum += p.expanded()
	}
	if d := s.producer.decoder; sum+int64(d.kept) >= s.mostExpanded() {
		d.spare, d.kept = nil, 0
	}
	if sum < s.mostExpanded() || len(ready) == 0 {
		return ready, sum
	}
	for _, p := range ready {
		if p.expanded() > 0 {
			able = append(able, p)
		}
	}
	if len(able) > 0 {
		return able, sum
	}
	for _, p := range s.parts {
		if p.expanded() > 0 {
			s.drop(p)
			p.tail = false
		}
	}
	return ready, 0
}
