package kafka

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/gobroadway/gobroadway/broadway"
)

// closeTimeout bounds Close: afterwards every connection is cut, which ends what
// still waits for a broker.
const closeTimeout = 10 * time.Second

// Producer consumes topics as a member of a group. Make one with [NewProducer],
// and give it to one pipeline.
//
// It is a [broadway.Producer], [broadway.Describer], [broadway.Validator],
// [broadway.Connector], [broadway.Drainer], [broadway.Lagger],
// [broadway.HealthChecker], [broadway.GapCounter], and the [broadway.Acknowledger] and
// [broadway.Releaser] of its messages.
type Producer struct {
	cfg     Config
	window  int64
	limits  broadway.Limits
	seed    maphash.Seed
	id      uint64 // tells its notes from those of others
	wire    *wire
	cluster *cluster
	decoder *decoder // used by the goroutine that runs Fetch
	buffers buffers  // for answers to Fetch

	ready   chan struct{} // something changed that Fetch waits for
	quit    chan struct{} // closed by Close
	asks    atomic.Uint64 // calls of Fetch
	blocked atomic.Bool   // a Fetch waits
	accused atomic.Bool   // see vouchFor
	count   counters
	loops   sync.WaitGroup

	mu        sync.Mutex // protects following fields
	session   *session
	kept      map[topicPartition]*ownership // see shelve
	counts    map[string]int                // partitions of each topic, as told last
	first     map[string]subscribed
	tried     bool
	started   bool
	draining  bool
	closed    bool
	fatal     error
	brokerErr error     // why metadata could not be had
	groupErr  error     // why there is no session
	refusals  int       // joins that failed in a row
	left      time.Time // when the last session ended, zero before the first
}

// NewProducer makes a producer. It dials nothing; mistakes in cfg are what
// [Producer.Validate] reports.
func NewProducer(cfg Config) *Producer {
	cfg = cfg.withDefaults()
	w := newWire(endpoint{cfg.Brokers, cfg.ClientID, cfg.TLS, cfg.SASL, progressTimeout + cfg.MaxWait})
	p := &Producer{
		cfg: cfg, window: int64(cfg.Window), seed: maphash.MakeSeed(), id: rand.Uint64(), wire: w, cluster: newCluster(w, cfg), decoder: newDecoder(cfg),
		ready: make(chan struct{}, 1), quit: make(chan struct{}), counts: map[string]int{}, first: map[string]subscribed{},
		kept: map[topicPartition]*ownership{},
	}
	p.size(broadway.Limits{})
	return p
}

// Validate reports every mistake of the configuration at once.
func (p *Producer) Validate() error { return p.cfg.validate() }

// Describe says what Kafka can and promises.
func (p *Producer) Describe(limits broadway.Limits) broadway.Traits {
	p.size(limits)
	return broadway.Traits{
		Kind: "kafka", Name: strings.Join(p.cfg.Topics, ","), Broker: true,
		Actions:     broadway.ActionSet(broadway.ActionStopPartition),
		PartitionBy: partitionBy(p.seed),
		Rewinds:     true,
		TLSInsecure: p.cfg.TLS != nil && p.cfg.TLS.InsecureSkipVerify,
	}
}

// size takes over the pipeline's bounds. The window is not below them, or a
// batch could wait for messages that the window holds back.
func (p *Producer) size(limits broadway.Limits) {
	p.limits = limits
	window := p.cfg.Window
	if window == 0 {
		window = max(DefaultWindow, 4*limits.MaxUnsettled)
	}
	p.window = int64(max(window, limits.MaxUnsettled))
}

// salt tells partitions apart in the order that PartitionBy promises.
func (p *Producer) salt(name topicPartition) uint64 { return maphash.Comparable(p.seed, name) }

// Connect makes the first connection, and lets the member join its group: that
// goes on, and is tried again without end, in the background.
func (p *Producer) Connect(ctx context.Context) error {
	if p.firstTime() {
		warn(p.cfg.Logger, p.cfg.TLS, p.cfg.SASL)
	}
	states, err := p.wire.describe(ctx, p.cfg.Topics)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	p.described(err)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errShut
	}
	for topic, state := range states {
		p.counts[topic] = len(state.partitions)
		p.notice(topic, state)
		if state.err != nil {
			p.cfg.Logger.Warn("kafka: topic is waited for", "topic", topic, "error", state.err)
		}
	}
	if !p.started {
		p.started = true
		p.groupErr = fmt.Errorf("kafka: joining group %s", p.cfg.Group)
		p.loops.Go(p.runGroup)
	}
	return nil
}

// firstTime says whether Connect is called for the first time.
func (p *Producer) firstTime() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := !p.tried
	p.tried = true
	return first
}

// runGroup is the member's life: one session after the other, until Close. All
// goroutines of the sessions are waited for here; a session's own end waits for
// none that may hang on a broker, so that the member is back in its group in time.
func (p *Producer) runGroup() {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer p.forfeit(nil)
	group, err := kafkago.NewConsumerGroup(p.groupConfig())
	if err != nil {
		p.fail(fmt.Errorf("kafka: group %s: %w", p.cfg.Group, err))
		return
	}
	wg.Go(func() {
		<-p.quit
		_ = group.Close()         // never fails
		p.wire.network.cutPolls() // the last session has ended, and the member has left
	})
	for {
		gen, err := group.Next(context.Background())
		if errors.Is(err, kafkago.ErrGroupClosed) {
			return
		}
		if err != nil {
			p.notJoined(err)
			continue
		}
		s := newSession(p, gen)
		p.forfeit(s)
		wg.Go(s.resumeLoop)
		wg.Go(s.fetchLoop)
		wg.Go(s.commitLoop)
		wg.Go(s.watchLoop)
		wg.Go(s.tendLoop)
		done := make(chan struct{})
		gen.Start(func(ctx context.Context) {
			defer close(done)
			s.run(ctx.Done())
		})
		<-done
	}
}

// groupConfig is for kafka-go. It does not watch partitions: its watcher ends the
// generation at once, again and again, while a topic is missing; ours does not.
func (p *Producer) groupConfig() kafkago.ConsumerGroupConfig {
	return kafkago.ConsumerGroupConfig{
		ID:      p.cfg.Group,
		Brokers: p.cfg.Brokers,
		Topics:  p.cfg.Topics,
		Dialer: &kafkago.Dialer{
			ClientID:      p.cfg.ClientID,
			DialFunc:      p.wire.network.dial,
			Timeout:       dialTimeout,
			TLS:           p.cfg.TLS,
			SASLMechanism: saslMechanism(p.cfg.SASL),
		},
		HeartbeatInterval: p.cfg.HeartbeatInterval,
		SessionTimeout:    p.cfg.SessionTimeout,
		RebalanceTimeout:  p.cfg.RebalanceTimeout,
		// Spread, so that the members of a restarted group do not join at once.
		JoinGroupBackoff: 500*time.Millisecond + rand.N(time.Second),
	}
}

// adopt makes s the session that Fetch hands out from.
func (p *Producer) adopt(s *session) {
	p.mu.Lock()
	p.session, p.groupErr, p.refusals, p.left = s, nil, 0, time.Time{}
	p.mu.Unlock()
	p.count.generations.Add(1)
	p.wake()
}

// dismiss ends the handing out from s.
func (p *Producer) dismiss(s *session) {
	s.mu.Lock()
	why := s.reason
	s.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session == s {
		p.session, p.left = nil, time.Now()
		p.groupErr = fmt.Errorf("kafka: joining group %s again", p.cfg.Group)
		if why != "" {
			p.groupErr = fmt.Errorf("%w: %s", p.groupErr, why)
		}
	}
}

func (p *Producer) notJoined(err error) {
	p.mu.Lock()
	p.groupErr = fmt.Errorf("kafka: joining group %s: %w", p.cfg.Group, err)
	p.refusals++
	failures := p.refusals
	p.mu.Unlock()
	if loud(failures) {
		p.cfg.Logger.Warn("kafka: not joined", "group", p.cfg.Group, "failures", failures, "error", err)
	}
}

// described keeps whether metadata could be had.
func (p *Producer) described(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.brokerErr = err
}

// partitionCount is how many partitions topic had when it was told last; state is
// what it is now.
func (p *Producer) partitionCount(topic string, state topicState) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.counts[topic]
	p.counts[topic] = len(state.partitions)
	p.notice(topic, state)
	return before
}

// current is the session to hand out from, nil when there is none.
func (p *Producer) current() (*session, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.fatal != nil:
		return nil, p.fatal
	case !p.started:
		return nil, errors.New("kafka: not connected")
	case p.draining:
		return nil, nil
	}
	return p.session, nil
}

func (p *Producer) isDraining() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.draining
}

// demand says how often Fetch was called, and whether a call waits now.
func (p *Producer) demand() (asks uint64, blocked bool) {
	return p.asks.Load(), p.blocked.Load()
}

// wake makes a waiting Fetch look again.
func (p *Producer) wake() { kick(p.ready) }

// Drain stops fetching, and drops what was fetched and not handed out. The member
// stays in its group, and what settles from now on is committed.
func (p *Producer) Drain(context.Context) error {
	p.mu.Lock()
	p.draining = true
	s := p.session
	p.mu.Unlock()
	if s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, part := range s.parts {
			s.drop(part)
		}
	}
	return nil
}

// Close commits what has settled, leaves the group and closes every connection,
// within about 10 s.
func (p *Producer) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed, p.draining = true, true
	p.mu.Unlock()
	close(p.quit)
	return p.wire.closeAfter(&p.loops)
}
