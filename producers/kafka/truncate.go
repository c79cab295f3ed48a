package kafka

import (
	"fmt"
	"time"
)

// A log is truncated when a replica that lacks records becomes its leader, or when a
// broker comes back without its last writes. Offsets above the cut are then used
// anew, for other records. Four things tell of it:
//
//   - Each Fetch names the leader epoch of the record before its position. The
//     leader answers with the offset from which its log differs, if it does: see
//     [session.diverged]. So it is found although the log has grown over the
//     position again. (Kafka 2.7 and later.)
//   - The leader knows nothing of that epoch, and says that the position is out of
//     range. So does a topic that was created anew, to those who cannot ask for it
//     by its id.
//   - The position lies beyond the end.
//   - Where something has settled above the position stands a record of a later
//     epoch: see [haul].cut.
//
// In the second and third case the leader is asked where that epoch ends.

// diverged takes over that the log of a leader differs from what was read of part.
// Callers hold mu.
func (s *session) diverged(node int32, part *partition, end epochEnd) {
	if node != part.leader.node {
		part.replica = anyBroker // only the leader decides
		return
	}
	if len(part.segments) > 0 {
		// What was fetched before is still to be handed out; the leader will say
		// it again.
		part.notBefore = time.Now().Add(backoff(1, time.Second))
		return
	}
	if to := part.own.divergence(end, part.fetchOffset); to < part.fetchOffset {
		s.truncate(part, part.fetchOffset, to)
		return
	}
	// What differs is above the position: the epoch before it is not what we took it
	// for.
	part.own.epochs = epochsUpTo(part.own.epochs, end.epoch)
	part.fetchEpoch = part.own.lastEpoch()
}

// divergence is the offset up to which what was read is what the leader has, given
// its answer to the epoch of the last record below position.
func (o *ownership) divergence(end epochEnd, position int64) int64 {
	to := min(end.end, position)
	for _, e := range o.epochs {
		if e.epoch > end.epoch { // the leader has nothing of it
			return min(to, e.offset)
		}
	}
	return to
}

// beyond is the end of what was handed out, or has settled before.
func (o *ownership) beyond() int64 {
	end := o.ledger.Position()
	if skipped := o.ledger.Skipped(); len(skipped) > 0 {
		end = max(end, skipped[len(skipped)-1].End)
	}
	return end
}

// epochsUpTo is what epochs says of records of epoch and before.
func epochsUpTo(epochs []epochStart, epoch int32) []epochStart {
	for i, e := range epochs {
		if e.epoch > epoch {
			return epochs[:i:i]
		}
	}
	return epochs
}

// truncate makes part go on at to, as the log was cut there. Callers hold mu.
func (s *session) truncate(part *partition, position, to int64) {
	s.producer.count.truncated.Add(1)
	s.log.Warn("kafka: log was truncated", "partition", part.name.String(), "position", position, "resumed", to, "committed", part.own.ledger.Committed())
	part.phase, part.lost = phaseFetching, -1
	if to < part.own.beyond() {
		// What comes now has offsets that were used before, and needs a ledger of
		// its own.
		s.rewind(part, &to)
		return
	}
	s.drop(part)
	part.tail = false
}

// resolveEpochs takes over where leaders said that epochs end. Callers hold mu.
func (s *session) resolveEpochs(p *plan, ends map[topicPartition]epochEnd) {
	for i, part := range p.parts {
		if part.phase != phaseResolving || part.own != p.owns[i] {
			continue
		}
		end, told := ends[part.name]
		if !told || end.code != codeNone {
			part.failures++
			part.notBefore = time.Now().Add(backoff(part.failures, 2*time.Second))
			if part.failures > 3 {
				part.failure = fmt.Errorf("kafka: %s: asking where epoch %d ends: %w", part.name, part.fetchEpoch, end.code)
			}
			kick(s.watchKick)
			continue
		}
		lost := part.lost
		to := part.logStart // of an epoch that is not in the log nothing is
		if end.epoch >= 0 && end.end >= 0 {
			to = part.own.divergence(end, lost)
		}
		if to < lost {
			part.failures, part.failure = 0, nil
			s.truncate(part, lost, to)
			continue
		}
		s.exists(part)
	}
}

// exists goes on with a position that a leader denied and has after all: it has
// changed meanwhile, or was not up to date. Callers hold mu.
func (s *session) exists(part *partition) {
	part.lost = -1
	part.failures++
	part.phase, part.notBefore = phaseFetching, time.Now().Add(backoff(part.failures, 2*time.Second))
}
