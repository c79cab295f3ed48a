package kafka

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// replicaTime is how long a replica is read that the leader told to, before the
// leader is asked again.
const replicaTime = 5 * time.Minute

// The lanes of a broker: exchanges that may be under way at once.
const (
	laneBehind  = iota // partitions that are behind: answered at once; two, so that
	laneBehind2        // one answer comes while the next is on its way
	laneTail           // long polls of partitions at the tail; two, so that a partition
	laneTail2          // that comes to the tail need not wait for one: see joins
	laneOffsets        // questions for offsets
	laneEpochs         // questions for the ends of leader epochs
	lanes
)

// broker is a session's view of one broker. Guarded by the session's mutex.
type broker struct {
	busy [lanes]bool
	asks [lanes]uint64 // the producer's count of Fetch calls when it was used
	// reserved is what exchanges under way may bring, and held what they have
	// brought and is not handed out: together at most twice MaxBytes.
	reserved, held int
	failures       int
	err            error
	// calm says that the second of two long polls brought nothing when it ended last: see
	// joins.
	calm bool
}

// plan is one exchange to make.
type plan struct {
	node     int32
	lane     int
	maxBytes int
	parts    []*partition
	owns     []*ownership // of parts, when the plan was made
	from     []int64      // the offsets that it asks for
	fetch    *kmsg.FetchRequest
	most     int16               // the version of fetch, at most
	topics   map[[16]byte]string // those that fetch asks for
	queries  []offsetQuery
	starts   []bool     // which queries are for where to begin, if not at the start
	ids      [][16]byte // of the topics of queries
	epochs   []epochQuery
}

// fetchLoop makes exchanges with brokers: whatever demand, room, budget and lanes
// allow, looked at whenever one of them has changed.
func (s *session) fetchLoop() {
	var wg sync.WaitGroup
	defer wg.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(s.launch(&wg)))
		select {
		case <-s.draining:
			return
		case <-s.fetchKick:
		case <-timer.C:
		}
	}
}

// launch starts the exchanges that may be made now, and says when to look again.
func (s *session) launch(wg *sync.WaitGroup) (again time.Time) {
	now := time.Now()
	plans, again := s.plans(now)
	s.start(wg, plans)
	if again.IsZero() {
		again = now.Add(time.Hour)
	}
	return again
}

// start makes exchanges. Whoever has finished one looks himself at once: the next request
// is on its way before the answer just had is decoded. One of those that may be made then
// he makes himself, as a new goroutine's stack has to grow first.
func (s *session) start(wg *sync.WaitGroup, plans []*plan) {
	for _, p := range plans {
		wg.Go(func() {
			for p != nil {
				next, again := s.execute(p)
				if p = nil; len(next) > 0 {
					p = next[0]
					s.start(wg, next[1:])
				}
				if !again.IsZero() {
					kick(s.fetchKick) // for the time to look again
				}
			}
		})
	}
}

// plans decides which exchanges to make now, and when to look again.
func (s *session) plans(now time.Time) (plans []*plan, again time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plansLocked(now)
}

func (s *session) plansLocked(now time.Time) (plans []*plan, again time.Time) {
	if s.ended {
		return nil, again
	}
	s.hungry, s.tight = false, false
	byLane := map[[2]int32][]*partition{}
	for _, p := range s.parts {
		if p.inflight || p.phase != phaseFetching && p.phase != phaseResolving {
			continue
		}
		if !p.doubted.IsZero() {
			continue // compare clears it
		}
		if now.Before(p.notBefore) {
			if again.IsZero() || p.notBefore.Before(again) {
				again = p.notBefore
			}
			continue
		}
		node := p.target(now)
		if node == anyBroker {
			p.notBefore = now.Add(backoff(1, time.Second))
			kick(s.watchKick)
			continue
		}
		if lane, ok := s.laneFor(p); ok && !s.ample(p, node) {
			key := [2]int32{node, int32(lane)}
			byLane[key] = append(byLane[key], p)
		}
	}
	for key, parts := range byLane {
		for len(parts) > 0 {
			p := s.plan(key[0], int(key[1]), parts)
			if p == nil {
				break
			}
			plans = append(plans, p)
			parts = p.others(parts)
		}
	}
	return plans, again
}

// laneFor says whether p may be asked for, and in which lane.
func (s *session) laneFor(p *partition) (int, bool) {
	if p.phase == phaseResolving {
		if p.timestamp == timestampEpoch {
			return laneEpochs, true
		}
		return laneOffsets, true
	}
	waiting, room := p.waiting(), int64(p.own.ref.Room())
	if len(p.segments) >= 2 || room == 0 || waiting >= max(room, p.latest/2) || p.own.ledger.Uncommitted()+waiting >= s.window {
		// When there is room again the answer must not wait for a long poll.
		s.tight, p.tail = true, false
		return 0, false
	}
	if p.tail {
		return laneTail, true
	}
	return laneBehind, true
}

// ample says that p can wait to be asked for: some of it waits here, and with what waits of
// others of its broker, and is under way, that is more than a response. It is looked at again
// when messages were handed out, as tight says. Callers hold mu.
func (s *session) ample(p *partition, node int32) bool {
	b := s.brokers[node]
	if b == nil || p.phase != phaseFetching || len(p.segments) == 0 || b.reserved+b.held <= max(s.cfg.MaxBytes, 2*s.cfg.MaxPartitionBytes) {
		return false
	}
	s.tight, p.tail = true, false
	return true
}

// plan makes an exchange of what may be asked of one broker, nil when its lane or
// its budget is in use, or when nobody wants more.
func (s *session) plan(node int32, lane int, parts []*partition) *plan {
	b := s.brokers[node]
	if b == nil {
		b = &broker{}
		s.brokers[node] = b
		s.producer.buffers.bound(2 * s.cfg.MaxBytes * len(s.brokers))
	}
	if lane <= laneTail && b.busy[lane] {
		lane++ // there are two
	}
	if b.busy[lane] || lane == laneTail && b.busy[laneTail2] && s.joins(b) {
		return nil
	}
	if lane != laneOffsets && lane != laneEpochs {
		if at := slices.IndexFunc(parts, func(part *partition) bool { return part.alone }); at >= 0 {
			parts = parts[at : at+1]
		}
	}
	p := &plan{node: node, lane: lane, parts: parts}
	switch {
	case lane == laneOffsets:
		for _, part := range parts {
			p.queries = append(p.queries, offsetQuery{part.name, part.leader.epoch, part.timestamp})
			p.starts = append(p.starts, part.lost < 0 && part.timestamp != timestampEarliest)
			p.ids = append(p.ids, part.topicID)
		}
	case lane == laneEpochs:
		for _, part := range parts {
			p.epochs = append(p.epochs, epochQuery{part.name, part.leader.epoch, part.fetchEpoch})
		}
	case !s.prepareFetch(p, b):
		return nil
	}
	b.busy[lane] = true
	b.reserved += p.maxBytes
	for _, part := range p.parts {
		part.inflight = true
		p.owns = append(p.owns, part.own)
		p.from = append(p.from, part.fetchOffset)
	}
	return p
}

// joinTime is how long a second long poll to one broker lasts, see joins.
const joinTime = 5 * time.Millisecond

// joins says that two long polls to one broker become one again: the second is short,
// and the first is not asked again while there is a second. Two that last, each of some
// partitions, cost broker and client twice as many exchanges of half as many messages.
// Who wants more than a byte in an answer gets none early for this. Where few messages come
// they stay two: short ones that bring nothing would follow each other until the first ends.
func (s *session) joins(b *broker) bool { return s.cfg.MinBytes == 1 && !b.calm }

// brought tells b what a plan has brought.
func (b *broker) brought(p *plan, answer *kmsg.FetchResponse) {
	if p.lane != laneTail2 {
		return
	}
	b.calm = true
	for i := range answer.Topics {
		for j := range answer.Topics[i].Partitions {
			if len(answer.Topics[i].Partitions[j].RecordBatches) > 0 {
				b.calm = false
			}
		}
	}
}

// prepareFetch builds the request, if there is demand and budget for it.
func (s *session) prepareFetch(p *plan, b *broker) bool {
	asks, blocked := s.producer.demand()
	if !blocked && asks == b.asks[p.lane] {
		s.hungry = true
		return false
	}
	p.maxBytes = max(s.cfg.MaxBytes/4, s.cfg.MaxPartitionBytes)
	wait := time.Duration(0)
	if p.lane > laneBehind2 {
		p.maxBytes, wait = max(s.cfg.MaxBytes/4, 1), s.cfg.MaxWait
	}
	if p.lane == laneTail2 && s.joins(b) {
		wait = min(wait, joinTime)
	}
	if free := 2*s.cfg.MaxBytes - b.reserved - b.held; free < p.maxBytes {
		s.evict(p.node)
		free = 2*s.cfg.MaxBytes - b.reserved - b.held
		if free < s.cfg.MaxBytes/4 {
			s.tight = true
			return false
		}
		p.maxBytes = min(p.maxBytes, free)
	}
	b.asks[p.lane] = asks
	p.order()
	p.fetch = s.fetchRequest(p, wait)
	return true
}

// order puts the partitions first that have waited longest, as brokers fill an answer
// from the front. Of those that are behind it leaves out the ones that maxBytes have no
// room for: they would be cut off. Compressed ones count as what they grow to.
func (p *plan) order() {
	slices.SortStableFunc(p.parts, func(a, b *partition) int { return int(a.turn - b.turn) })
	if p.lane > laneBehind2 {
		return
	}
	sum, grown := 0, int64(0)
	for i, part := range p.parts {
		n := part.wants()
		if grown += int64(n) * part.grows() / ratioUnit; grown > int64(p.maxBytes) && i > 0 {
			p.parts = p.parts[:i]
			break
		}
		sum += n
	}
	p.maxBytes = min(sum, p.maxBytes)
}

// others are those of parts that are not in p, in a list of their own.
func (p *plan) others(parts []*partition) (left []*partition) {
	for _, part := range parts {
		if !slices.Contains(p.parts, part) {
			left = append(left, part)
		}
	}
	return left
}

// evict drops what was fetched of partitions that have no room: others of the
// same broker need the budget. It is fetched again when there is room.
func (s *session) evict(node int32) {
	for _, p := range s.parts {
		if len(p.segments) == 0 || p.decoding || p.inflight || p.segments[0].frame.node != node || p.own == nil {
			continue
		}
		if p.own.ref.Room() == 0 || p.own.ledger.Uncommitted() >= s.window {
			s.drop(p)
			p.tail = false
		}
	}
}

// fetchRequest asks for all partitions of a plan.
func (s *session) fetchRequest(p *plan, wait time.Duration) *kmsg.FetchRequest {
	r := kmsg.NewPtrFetchRequest()
	r.ReplicaID = -1
	r.MaxWaitMillis = int32(wait / time.Millisecond)
	r.MinBytes = int32(s.cfg.MinBytes)
	if wait == 0 {
		r.MinBytes = 0
	}
	r.MaxBytes = int32(p.maxBytes)
	r.IsolationLevel = int8(s.cfg.Isolation)
	r.SessionEpoch = -1
	r.Rack = s.cfg.Rack
	p.most, p.topics = mostFetch, map[[16]byte]string{}
	var topics byTopic[kmsg.FetchRequestTopic]
	for _, part := range p.parts {
		t := topics.of(part.name.topic, kmsg.NewFetchRequestTopic)
		t.Topic, t.TopicID = part.name.topic, part.topicID
		p.topics[part.topicID] = part.name.topic
		if part.topicID == [16]byte{} {
			p.most = mostFetchByName
		}
		q := kmsg.NewFetchRequestTopicPartition()
		q.Partition = part.name.partition
		q.FetchOffset = part.fetchOffset
		q.CurrentLeaderEpoch = part.leader.epoch
		q.LastFetchedEpoch = part.fetchEpoch
		q.LogStartOffset = -1
		q.PartitionMaxBytes = int32(part.wants())
		t.Partitions = append(t.Partitions, q)
	}
	r.Topics = topics.list
	return r
}

// execute makes the exchange of a plan, takes over its answer, and says what plans does
// then: under one lock, as Fetch waits for that already when it was woken in between.
func (s *session) execute(p *plan) (next []*plan, again time.Time) {
	s.producer.count.exchanges.Add(1)
	var fetched *kmsg.FetchResponse
	var buffer []byte
	var offsets map[topicPartition]offsetAnswer
	var ends map[topicPartition]epochEnd
	var err error
	switch {
	case p.fetch != nil:
		fetched, buffer, err = s.exchange(p)
	case p.epochs != nil:
		ends, err = s.cluster.epochEnds(p.node, p.epochs)
	default:
		if err = s.newcomers(p); err == nil {
			offsets, err = s.cluster.offsets(p.node, p.queries)
		}
	}
	s.mu.Lock()
	b := s.brokers[p.node]
	b.busy[p.lane] = false
	b.reserved -= p.maxBytes
	b.err = err
	for _, part := range p.parts {
		part.inflight = false
	}
	switch {
	case s.ended:
		s.producer.buffers.back(buffer)
	case p.fetch != nil && errors.Is(err, errLargeAnswer):
		s.tooLarge(p, err)
	case err != nil:
		b.failures++
		s.failed(p, b, err)
	case fetched != nil:
		b.failures = 0
		b.brought(p, fetched)
		s.apply(p, b, fetched, buffer)
	case ends != nil:
		b.failures = 0
		s.resolveEpochs(p, ends)
	default:
		b.failures = 0
		s.resolve(p, offsets)
	}
	next, again = s.plansLocked(time.Now())
	s.mu.Unlock()
	s.producer.wake()
	if p.lane == laneTail || p.lane == laneTail2 {
		// Fetch goes first: its few messages are there, and the next are not. Otherwise
		// the request would be written before it has a processor.
		runtime.Gosched()
	}
	return next, again
}

// exchange asks for records. The answer aliases buffer, which is to be given back.
func (s *session) exchange(p *plan) (answer *kmsg.FetchResponse, buffer []byte, err error) {
	most := s.cfg.MaxBytes + s.cfg.MaxBatchBytes + frameSlack
	r, err := s.wire.fetch(p.node, question{request: p.fetch, most: p.most, maxFrame: most, buffers: &s.producer.buffers})
	if err != nil {
		return nil, nil, err
	}
	answer, ok := r.response.(*kmsg.FetchResponse)
	switch {
	case !ok:
		err = unexpected(r.response)
	case answer.Version < 4:
		err = fmt.Errorf("kafka: broker %d is older than 0.11", p.node)
	case answer.ErrorCode != 0:
		err = fmt.Errorf("kafka: Fetch: %w", codeError(answer.ErrorCode))
	}
	if err != nil {
		s.producer.buffers.back(r.buffer)
		return nil, nil, err
	}
	return answer, r.buffer, nil
}

// tooLarge looks for the partition whose next batch is larger than is accepted: a
// broker sends the first batch of an answer whole, whatever was asked for. Each
// partition of the plan is asked for alone, so that the others go on, and the one
// stops. What is not read cannot be passed over: not with SkipBatch either. Callers
// hold mu.
func (s *session) tooLarge(p *plan, err error) {
	s.producer.count.exchangesFailed.Add(1)
	if len(p.parts) > 1 {
		for _, part := range p.parts {
			part.alone = true
		}
		return
	}
	part := p.parts[0]
	if part.own != p.owns[0] || part.fetchOffset != p.from[0] || part.phase != phaseFetching {
		return
	}
	part.spoils++
	if err.Error() != part.spoiledBy {
		part.spoiledBy, part.corrupt = err.Error(), 0 // another size: it was made on the way
	}
	part.corrupt++
	s.producer.count.corrupt.Add(1)
	err = fmt.Errorf("kafka: %s: at offset %d: a batch that is too large: %w", part.name, part.fetchOffset, err)
	if part.corrupt < corruptTries {
		part.alone, part.notBefore = true, time.Now().Add(backoff(part.spoils, time.Second))
		if loud(part.spoils) {
			s.log.Warn("kafka: batch too large, fetching it again", "error", err)
		}
		return
	}
	s.log.Error("kafka: batch too large, partition stopped", "error", err)
	s.halt(part, err)
}

// failed backs off from a broker that did not answer. Callers hold mu.
func (s *session) failed(p *plan, b *broker, err error) {
	s.producer.count.exchangesFailed.Add(1)
	if loud(b.failures) {
		s.log.Warn("kafka: no answer", "broker", p.node, "failures", b.failures, "error", err)
	}
	until := time.Now().Add(backoff(b.failures, 2*time.Second))
	for _, part := range p.parts {
		part.notBefore, part.replica = until, anyBroker
	}
	kick(s.watchKick)
}
