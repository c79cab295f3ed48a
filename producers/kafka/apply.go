package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gobroadway/gobroadway/broadway"
)

// corruptTries is how often a batch is fetched before it counts as corrupt: the
// bytes may have been damaged on their way.
const corruptTries = 3

// apply takes over what a broker answered. Callers hold mu.
func (s *session) apply(p *plan, b *broker, answer *kmsg.FetchResponse, buffer []byte) {
	now := time.Now()
	told := map[*partition]bool{}
	f := &frame{node: p.node, size: cap(buffer), buffer: buffer}
	for i := range answer.Topics {
		t := &answer.Topics[i]
		if answer.Version > mostFetchByName {
			t.Topic = p.topics[t.TopicID]
		}
		for j := range t.Partitions {
			q := &t.Partitions[j]
			part := s.index[topicPartition{t.Topic, q.Partition}]
			at := slices.Index(p.parts, part)
			if part == nil || at < 0 || told[part] {
				continue // not asked
			}
			told[part] = true
			// An answer that no longer continues what we have would leave a gap.
			if part.own == p.owns[at] && part.fetchOffset == p.from[at] && part.phase == phaseFetching {
				s.applyPartition(f, part, q, now)
			}
		}
	}
	if f.users > 0 {
		b.held += f.size
	} else {
		s.producer.buffers.back(buffer)
	}
	for _, part := range p.parts {
		if !told[part] {
			part.notBefore = now.Add(backoff(1, time.Second))
		}
	}
}

// applyPartition takes over one partition's part. Callers hold mu.
func (s *session) applyPartition(f *frame, part *partition, q *kmsg.FetchResponseTopicPartition, now time.Time) {
	part.alone = false
	if c := code(q.ErrorCode); c != codeNone {
		s.refused(f.node, part, c, now)
		return
	}
	part.failures, part.failure = 0, nil
	part.highWatermark = q.HighWatermark
	part.clip()
	part.logStart = max(part.logStart, q.LogStartOffset)
	if q.PreferredReadReplica >= 0 && q.PreferredReadReplica != f.node {
		part.replica, part.replicaUntil = q.PreferredReadReplica, now.Add(replicaTime)
		part.detour(now)
		return
	}
	if d := q.DivergingEpoch; d.Epoch >= 0 && d.EndOffset >= 0 {
		s.diverged(f.node, part, epochEnd{epoch: d.Epoch, end: d.EndOffset})
		part.detour(now)
		return
	}
	end := q.HighWatermark
	if s.cfg.Isolation == ReadCommitted && q.LastStableOffset >= 0 {
		end = q.LastStableOffset
	}
	e := measure(q.RecordBatches, part.fetchOffset, end, part.doubt)
	part.doubt, part.ahead = e.doubt, e.ahead
	switch {
	case e.doubt >= 0:
		part.tail = false // look again
		part.detour(now)
		return
	case e.complete > 0 || e.broken:
		seg := &segment{
			frame: f, rest: q.RecordBatches[:e.complete],
			expected: e.records, left: e.records, next: part.fetchOffset, broken: e.broken, held: e.held, aborted: abortedOf(q),
		}
		f.users++
		part.segments = append(part.segments, seg)
		part.latest = e.records
		part.fetchOffset, part.fetchEpoch = e.next, part.laterEpoch(part.fetchEpoch, e.epoch)
		s.turn++
		part.turn = s.turn
		part.partBytes = s.cfg.MaxPartitionBytes
	case len(q.RecordBatches) > 0:
		// Only the beginning of a batch fitted in. As it brought nothing it will
		// come first, and brokers send a first batch whole. Should one not, ask
		// for more.
		part.partBytes = min(2*part.partBytes, s.cfg.MaxBatchBytes+frameSlack)
		part.tail = false
		part.detour(now)
		return
	}
	part.detours = 0
	part.tail = part.atTail(end)
}

// mostDetours is how many answers in a row may lead elsewhere before the next
// exchange waits: a leader and a replica may send us to each other.
const mostDetours = 8

// detour counts an answer that neither brought anything nor said that there is
// nothing.
func (p *partition) detour(now time.Time) {
	if p.detours++; p.detours > mostDetours {
		p.notBefore = now.Add(backoff(p.detours-mostDetours, time.Second))
	}
}

// abortedOf lists the transactions that an answer says were aborted.
func abortedOf(q *kmsg.FetchResponseTopicPartition) []aborted {
	if len(q.AbortedTransactions) == 0 {
		return nil
	}
	list := make([]aborted, 0, len(q.AbortedTransactions))
	for _, a := range q.AbortedTransactions {
		list = append(list, aborted{a.ProducerID, a.FirstOffset})
	}
	slices.SortFunc(list, func(a, b aborted) int { return cmp.Compare(a.first, b.first) })
	return list
}

// refused deals with a partition's error code. Callers hold mu.
func (s *session) refused(node int32, part *partition, c code, now time.Time) {
	fromLeader := node == part.leader.node
	part.replica = anyBroker
	switch {
	case c == codeOutOfRange && fromLeader:
		s.outOfRange(part)
		return
	case c == codeOutOfRange:
		part.detour(now)
		return // a replica may lag behind: ask the leader, at once
	case c == codeUnknownTopicOrPartition || c == codeUnknownTopicID || c == codeInconsistentTopicID:
		// It was deleted, and perhaps created anew.
		part.doubted = now
		kick(s.watchKick)
	case c.moved():
		kick(s.watchKick)
	}
	part.failures++
	part.notBefore = now.Add(backoff(part.failures, 5*time.Second))
	if part.failures > 3 || !c.moved() {
		part.failure = fmt.Errorf("kafka: %s: %w", part.name, c)
	}
	if c.moved() && fromLeader && part.failures%4 == 0 {
		// It denies, again and again, what metadata says: perhaps the connections
		// lead to somebody who is not that broker any more.
		s.wire.redial(node)
	}
	level := slog.LevelDebug // that leaders move is nothing special
	if part.failure != nil && loud(part.failures) {
		level = slog.LevelWarn
	}
	s.log.Log(context.Background(), level, "kafka: not fetched", "partition", part.name.String(), "broker", node, "failures", part.failures, "error", c)
}

// outOfRange begins to find out what there is: the leader says that the position
// of part does not exist, and not what does. Callers hold mu.
func (s *session) outOfRange(part *partition) {
	if len(part.segments) > 0 {
		// What was fetched before it is still to be handed out; the question
		// will be asked again.
		part.notBefore = time.Now().Add(backoff(1, time.Second))
		return
	}
	part.phase, part.lost, part.timestamp = phaseResolving, part.fetchOffset, timestampEarliest
	// Perhaps the topic is another one by now: then this is no matter of policy.
	part.doubted = time.Now()
	kick(s.watchKick)
}

// resolve takes over offsets that a leader was asked for. Callers hold mu.
func (s *session) resolve(p *plan, answers map[topicPartition]offsetAnswer) {
	for i, part := range p.parts {
		if part.phase != phaseResolving || part.own != p.owns[i] {
			continue
		}
		a, told := answers[part.name]
		if !told || a.code != codeNone {
			part.failures++
			part.notBefore = time.Now().Add(backoff(part.failures, 2*time.Second))
			if part.failures > 3 {
				part.failure = fmt.Errorf("kafka: %s: asking for its offsets: %w", part.name, a.code)
			}
			kick(s.watchKick)
			continue
		}
		part.failures, part.failure = 0, nil
		s.resolved(part, a.offset)
	}
}

// resolved goes on with the offset that part asked for: to its start, or to the
// other end of the log, or to a decision about a lost position. Callers hold mu.
func (s *session) resolved(part *partition, offset int64) {
	switch {
	case offset < 0:
		part.timestamp = timestampLatest // nothing is that young
	case part.lost < 0:
		s.open(part, committedOffset{next: offset, epoch: -1}, nil)
		part.own.durable = false
		part.own.pin = part.own.pin || s.cfg.StartAt.kind != startEarliest || part.renewed
		kick(s.commitKick)
	case part.timestamp == timestampEarliest:
		part.logStart, part.timestamp = offset, timestampLatest
	default:
		part.highWatermark = offset
		if part.lost >= part.logStart && part.fetchEpoch >= 0 {
			part.timestamp = timestampEpoch
			return
		}
		s.found(part, part.logStart, offset)
	}
}

// found applies the policy to a position that does not exist: the log begins at
// start and ends at end. A position beyond the end comes here only if no leader epoch
// is known of it, as after a commit by an administrator: then nobody can say where
// the log was cut. Callers hold mu.
func (s *session) found(part *partition, start, end int64) {
	lost := part.lost
	if lost >= start && lost <= end {
		s.exists(part)
		return
	}
	part.lost = -1
	s.producer.count.outOfRange.Add(1)
	to := start
	switch s.cfg.OutOfRange {
	case Fail:
		err := fmt.Errorf("kafka: %s: the position %d does not exist: the log begins at %d and ends at %d", part.name, lost, start, end)
		s.halt(part, err)
		s.producer.fail(err)
		return
	case ResumeLatest:
		to = end
	}
	s.log.Warn("kafka: position does not exist", "partition", part.name.String(),
		"position", lost, "start", start, "end", end, "resumed", to, "policy", s.cfg.OutOfRange.String())
	s.producer.count.skipped.Add(max(to-lost, 0))
	if to < part.own.ledger.Position() {
		// The log ends before our position: what comes now has offsets that were
		// used before, and needs a ledger of its own.
		part.phase = phaseFetching
		s.rewind(part, &to)
		return
	}
	part.phase, part.fetchOffset = phaseFetching, to
	part.own.ledger.Advance(to)
}

// spoiled deals with a batch that could not be decoded, in the answer that the
// partition's first segment holds. Callers hold mu.
func (s *session) spoiled(part *partition, seg *segment, err error) {
	part.spoils++
	if err.Error() != part.spoiledBy {
		part.spoiledBy, part.corrupt = err.Error(), 0 // another mistake: it is not the log's, but made on the way
	}
	part.corrupt++
	s.producer.count.corrupt.Add(1)
	after, passable := seg.passable(part.highWatermark)
	s.drop(part)
	part.fetchOffset, part.fetchEpoch, part.tail = seg.next, part.own.lastEpoch(), false
	err = fmt.Errorf("kafka: %s: %w", part.name, err)
	switch {
	case part.corrupt < corruptTries:
		part.notBefore = time.Now().Add(backoff(part.spoils, time.Second))
		if loud(part.spoils) {
			s.log.Warn("kafka: corrupt batch, fetching it again", "error", err)
		}
	case s.cfg.Corrupt == SkipBatch && passable:
		s.log.Error("kafka: corrupt batch skipped", "error", err, "from", seg.next, "to", after)
		s.producer.count.skippedBatches.Add(1)
		s.producer.count.skipped.Add(after - seg.next)
		part.corrupt = 0
		part.own.ledger.Advance(after)
		part.fetchOffset = after
	default:
		s.log.Error("kafka: corrupt batch, partition stopped", "error", err)
		s.halt(part, err)
	}
}

// halt stops part for the rest of the generation: what no handler holds is
// released, and what has settled is still committed. Callers hold mu.
func (s *session) halt(part *partition, err error) {
	part.phase, part.failure = phaseStopped, err
	s.drop(part)
	s.chores = append(s.chores, chore{part: part, own: part.own})
	kick(s.tendKick)
}

// fail makes Fetch return err, which ends the pipeline.
func (p *Producer) fail(err error) {
	p.mu.Lock()
	p.fatal = errors.Join(p.fatal, broadway.Fatal(err))
	p.mu.Unlock()
	p.wake()
}
