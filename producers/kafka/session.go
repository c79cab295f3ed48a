package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/gobroadway/gobroadway/broadway"
)

// session is the time in which this member belongs to one generation of the
// group: the partitions that it was assigned, what it fetched and what it
// commits. Its loops (fetch, commit, watch, tend) run until stopped; run leads it
// through the generation's end.
type session struct {
	producer *Producer
	cfg      Config
	wire     *wire
	cluster  *cluster
	log      *slog.Logger
	member   member
	share    int // limit of each AckRef, 0 for none but the pipeline's
	window   int64

	fetchKick  chan struct{} // something changed that fetchLoop waits for
	commitKick chan struct{} // commit now
	watchKick  chan struct{} // metadata is stale
	tendKick   chan struct{} // a partition rewinds or stops
	over       chan struct{} // closed when the session is to end by itself
	disowned   chan struct{} // closed when nothing may be committed any more
	draining   chan struct{} // closed when it hands out no more
	finishing  chan struct{} // closed when what could settle has settled
	flushed    chan struct{} // closed by commitLoop after its last commit
	stop       chan struct{} // closed when the loops are to end

	mu             sync.Mutex // protects following fields
	parts          []*partition
	index          map[topicPartition]*partition
	brokers        map[int32]*broker
	ids            map[string][16]byte // topic ids as they were told last
	chores         []chore             // what tendLoop is to do
	ended          bool                // hands out no more
	fenced         error               // why nothing may be committed any more
	reason         string              // why over is closed
	turn           int64
	rover          int   // where Fetch began last
	hungry         bool  // fetchLoop left something out for want of demand
	tight          bool  // fetchLoop left something out for want of room
	stuck          bool  // Fetch found nothing that it may hand out of what is there
	unknown        error // topics that do not exist, as one error
	commitFailures int
	commitErr      error
	mostNote       int  // characters of a note, 0 when the broker takes none
	closing        bool // what is committed now is the last
	trial          trial
	seen           map[uint64]int32 // see vouch
}

func newSession(p *Producer, gen *kafkago.Generation) *session {
	s := &session{
		producer: p, cfg: p.cfg, wire: p.wire, cluster: p.cluster, window: p.window,
		member:     member{id: gen.MemberID, generation: gen.ID},
		fetchKick:  make(chan struct{}, 1),
		commitKick: make(chan struct{}, 1),
		watchKick:  make(chan struct{}, 1),
		tendKick:   make(chan struct{}, 1),
		over:       make(chan struct{}),
		disowned:   make(chan struct{}),
		draining:   make(chan struct{}),
		finishing:  make(chan struct{}),
		flushed:    make(chan struct{}),
		stop:       make(chan struct{}),
		index:      map[topicPartition]*partition{},
		brokers:    map[int32]*broker{},
		ids:        map[string][16]byte{},
		mostNote:   mostNote,
	}
	for topic, assigned := range gen.Assignments {
		for _, a := range assigned {
			part := &partition{
				name:    topicPartition{topic, int32(a.ID)},
				leader:  leader{node: anyBroker},
				replica: anyBroker, lost: -1, fetchEpoch: -1, highWatermark: -1, logStart: -1, doubt: -1,
				partBytes: p.cfg.MaxPartitionBytes,
			}
			s.parts = append(s.parts, part)
			s.index[part.name] = part
		}
	}
	slices.SortFunc(s.parts, func(a, b *partition) int {
		return max(-1, min(1, 2*strings.Compare(a.name.topic, b.name.topic)+int(a.name.partition-b.name.partition)))
	})
	for i, part := range s.parts {
		part.at = i
	}
	if len(s.parts) > 1 {
		s.share = (p.limits.MaxUnsettled + 1) / 2
	}
	s.log = p.cfg.Logger.With("group", p.cfg.Group, "generation", gen.ID)
	return s
}

// kick wakes a loop. A kick that finds the last one unread is not lost: the loop
// will look at everything.
func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run leads the session from its assignment to its end: by the generation
// (ended), or for a reason of its own. When it returns, the member goes back into
// the group.
func (s *session) run(ended <-chan struct{}) {
	s.producer.adopt(s)
	s.log.Info("kafka: joined", "member", s.member.id, "partitions", len(s.parts))
	select {
	case <-ended:
	case <-s.over:
	}
	s.revoke()
	s.producer.dismiss(s)
	close(s.stop)
}

// revoke stops handing out, gives the pipeline time to settle, commits, and ends
// all epochs:
//
//  1. ended is set: Fetch hands out nothing more of this session, and answers of
//     exchanges under way are dropped.
//  2. The references drain: the pipeline releases what no handler holds, and
//     flushes open batches. commitLoop gives signs of life meanwhile, as kafka-go's
//     heartbeats have stopped.
//  3. What has settled within the budget is committed on this generation.
//  4. The references end, and what settles later is a no-op, except those with
//     something left that only this process knows: see [Producer.shelve].
func (s *session) revoke() {
	s.mu.Lock()
	s.ended = true
	var owns []*ownership
	for _, p := range s.parts {
		s.drop(p)
		if p.own != nil {
			owns = append(owns, p.own)
		}
	}
	why := s.reason
	s.mu.Unlock()
	close(s.draining)
	for _, o := range owns {
		o.ref.Drain()
	}
	budget, cancel := context.WithTimeout(context.Background(), s.cfg.revokeBudget())
	defer cancel()
	// A fifth is kept for the last commit.
	settling, enough := context.WithTimeout(budget, s.cfg.revokeBudget()*4/5)
	s.await(settling, owns)
	enough()
	close(s.finishing)
	select {
	case <-s.flushed:
	case <-budget.Done():
		// A commit under way may still arrive: it carries this generation, and
		// the broker refuses it once the next one stands.
	}
	late, unsaid := s.producer.shelve(s, owns)
	s.accused()
	s.log.Info("kafka: left", "reason", why, "running", late, "uncommitted", unsaid)
}

// await returns when all references are settled, settling ends, or waiting is of
// no use any more.
func (s *session) await(settling context.Context, owns []*ownership) {
	ctx, cancel := context.WithCancel(settling)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	done := make(chan struct{})
	defer close(done)
	wg.Go(func() {
		select {
		case <-done:
		case <-s.disowned: // nothing may be committed
			cancel()
		case <-s.producer.quit: // the pipeline is done with its messages
			cancel()
		}
	})
	for _, o := range owns {
		if o.ref.Wait(ctx) != nil {
			return
		}
	}
}

// end makes the session end by itself, so that the member joins anew. Callers
// hold mu.
func (s *session) end(reason string) {
	if s.reason == "" {
		s.reason = reason
		close(s.over)
	}
}

// fence ends the session because the group no longer knows this member: nothing
// may be committed any more, neither here nor on the next generation. Callers
// hold mu.
func (s *session) fence(err error) {
	if s.fenced == nil {
		s.fenced = err
		s.producer.count.fenced.Add(1)
		close(s.disowned)
	}
	s.end(err.Error())
}

// drop forgets what was fetched of p and not handed out. Callers hold mu.
func (s *session) drop(p *partition) {
	keep := 0
	if p.decoding {
		keep = 1 // Fetch reads it; surface drops it
	}
	for _, seg := range p.segments[min(keep, len(p.segments)):] {
		s.free(seg)
	}
	p.segments = p.segments[:min(keep, len(p.segments))]
	if p.own != nil && keep == 0 {
		p.fetchOffset, p.fetchEpoch, p.ahead = p.own.ledger.Position(), p.own.lastEpoch(), 0
	}
}

// free lets go of a segment. Its frame counts until the last one is gone. Callers
// hold mu.
func (s *session) free(seg *segment) {
	if seg.frame.users--; seg.frame.users == 0 {
		s.brokers[seg.frame.node].held -= seg.frame.size
		s.producer.buffers.back(seg.frame.buffer)
	}
}

// pause waits with backoff and says whether the session goes on.
func (s *session) pause(attempt int) bool {
	timer := time.NewTimer(backoff(attempt, 2*time.Second))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.draining:
		return false
	}
}

// backoff grows from 100 ms to most, spread by a fifth.
func backoff(attempt int, most time.Duration) time.Duration {
	b := broadway.Backoff{Initial: 100 * time.Millisecond, Max: most, Factor: 2, Jitter: 0.2}
	return b.Delay(min(attempt, 30), rand.Float64())
}

// watchLoop looks for new leaders, new partitions and recreated topics.
func (s *session) watchLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for failures := 0; ; {
		select {
		case <-s.stop:
			return
		case <-s.draining:
			return
		case <-s.watchKick:
		case <-timer.C:
		}
		asked := time.Now()
		states, err := s.cluster.describe()
		s.producer.described(err)
		next := s.cfg.MetadataInterval
		if err != nil {
			failures++
			next = min(next, backoff(failures, 2*time.Second))
		} else {
			failures = 0
			if s.compare(states, asked) {
				next = min(next, time.Second)
			}
		}
		timer.Reset(next)
		// A kick within the next moments is answered by the answer just had.
		if !s.pauseFor(100 * time.Millisecond) {
			return
		}
	}
}

func (s *session) pauseFor(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.draining:
		return false
	}
}

// compare takes over the leaders, and ends the session when the assignment no
// longer covers what there is: of an answer to what was asked at a time. It says
// whether a topic that a broker denied has not been seen since.
func (s *session) compare(states map[string]topicState, asked time.Time) (doubt bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	var missing []error
	for _, topic := range s.cfg.Topics {
		if err := states[topic].err; err != nil {
			missing = append(missing, fmt.Errorf("kafka: topic %s: %w", topic, err))
		}
	}
	s.unknown = errors.Join(missing...)
	s.checkTopics(states)
	for _, p := range s.parts {
		l, known := states[p.name.topic].partitions[p.name.partition]
		if !known || l.epoch >= 0 && l.epoch < p.leader.epoch {
			doubt = doubt || !p.doubted.IsZero()
			continue // the topic is being deleted, or the broker is behind
		}
		if asked.After(p.doubted) {
			p.doubted = time.Time{} // it is the same topic still: see checkTopics
		}
		doubt = doubt || !p.doubted.IsZero()
		if p.topicID == [16]byte{} {
			p.topicID = states[p.name.topic].id
		}
		if l != p.leader {
			p.leader, p.replica, p.notBefore = l, anyBroker, time.Time{}
		}
	}
	kick(s.fetchKick)
	return doubt
}

// checkTopics looks for what the assignment cannot have covered: it was made, by
// whichever member leads the group, after the picture that the producer had when
// it joined. A change since then may have been covered or not; joining once more
// settles it. Callers hold mu.
func (s *session) checkTopics(states map[string]topicState) {
	for topic, state := range states {
		if state.err != nil {
			continue
		}
		if count, known := len(state.partitions), s.producer.partitionCount(topic, state); count != known {
			s.end(fmt.Sprintf("topic %s has %d partitions and had %d", topic, count, known))
		}
		if was := s.ids[topic]; was != state.id && was != [16]byte{} {
			s.void(topic)
		}
		s.ids[topic] = state.id
	}
}

// void gives up the partitions of a topic that was deleted and created anew:
// their offsets mean something else now. Callers hold mu.
func (s *session) void(topic string) {
	for _, p := range s.parts {
		if p.name.topic != topic {
			continue
		}
		p.phase = phaseStopped
		if p.own != nil {
			p.own.void = true
		}
		s.drop(p)
	}
	s.producer.count.recreated.Add(1)
	s.log.Warn("kafka: topic was deleted and created anew", "topic", topic)
	s.end(fmt.Sprintf("topic %s was deleted and created anew", topic))
}
