package kafka

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// counters are what Stats shows.
type counters struct {
	generations, fenced, abandoned, repeats, rewinds atomic.Int64
	kept                                             atomic.Int64
	commits, commitsFailed                           atomic.Int64
	exchanges, exchangesFailed                       atomic.Int64
	outOfRange, corrupt, skippedBatches, skipped     atomic.Int64
	truncated, recreated                             atomic.Int64
	foreign, notesDoubted, suspects                  atomic.Int64
}

// Stats are counts since the producer was made.
type Stats struct {
	// Generations counts how often the member got an assignment; Fenced how
	// often the group gave it up before it could commit.
	Generations, Fenced int64
	// Abandoned counts messages that were handed out and not settled when their
	// partition had to be given up: their next owner handles them again.
	Abandoned int64
	// Repeats counts messages that had settled when their partition was given
	// up, while no durable commit says so: neither its offset, nor the metadata
	// that lists what has settled above. Their next owner handles them again.
	Repeats int64
	// Kept counts messages that would have been among Abandoned or Repeats, but
	// for their partition, which returned with the next assignment.
	Kept int64
	// Rewinds counts partitions that began again after messages were released.
	Rewinds int64
	// Commits counts commit requests, CommitsFailed those that failed, in whole
	// or for some partition.
	Commits, CommitsFailed int64
	// Exchanges counts requests for records and offsets, ExchangesFailed those
	// without an answer.
	Exchanges, ExchangesFailed int64
	// OutOfRange counts positions that did not exist.
	OutOfRange int64
	// Truncations counts positions from which a log had been cut: the partition went
	// on at the cut, where offsets are used anew.
	Truncations int64
	// RecreatedTopics counts topics that were found deleted and created anew.
	RecreatedTopics int64
	// CorruptBatches counts batches that could not be decoded, each time;
	// SkippedBatches those that were passed over.
	CorruptBatches, SkippedBatches int64
	// SkippedOffsets counts offsets passed over by the OutOfRange and Corrupt
	// policies.
	SkippedOffsets int64
	// ForeignMetadata counts commits found that carried metadata of another
	// program, DoubtedMetadata those whose own could not be confirmed: what it
	// lists as settled is handled again.
	ForeignMetadata, DoubtedMetadata int64
	// Suspects counts partitions that began with messages to be tried one at a
	// time, as one of them may have ended its process.
	Suspects int64
}

// Stats is a picture of what the producer counted.
func (p *Producer) Stats() Stats {
	c := &p.count
	return Stats{
		Generations: c.generations.Load(), Fenced: c.fenced.Load(), Abandoned: c.abandoned.Load(), Repeats: c.repeats.Load(), Rewinds: c.rewinds.Load(),
		Kept:    c.kept.Load(),
		Commits: c.commits.Load(), CommitsFailed: c.commitsFailed.Load(),
		Exchanges: c.exchanges.Load(), ExchangesFailed: c.exchangesFailed.Load(),
		OutOfRange: c.outOfRange.Load(), Truncations: c.truncated.Load(), RecreatedTopics: c.recreated.Load(), CorruptBatches: c.corrupt.Load(),
		SkippedBatches: c.skippedBatches.Load(), SkippedOffsets: c.skipped.Load(),
		ForeignMetadata: c.foreign.Load(), DoubtedMetadata: c.notesDoubted.Load(), Suspects: c.suspects.Load(),
	}
}

// Gaps is what [Stats] says of skipped offsets and truncations: see
// [broadway.GapCounter].
func (p *Producer) Gaps() broadway.Gaps {
	return broadway.Gaps{SkippedOffsets: p.count.skipped.Load(), Truncations: p.count.truncated.Load()}
}

// Lag is, for each partition that this member owns and has heard of, how many
// messages are not settled: those at the broker, and those in the pipeline.
func (p *Producer) Lag() []broadway.Lag {
	p.mu.Lock()
	s := p.session
	p.mu.Unlock()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var lags []broadway.Lag
	for _, part := range s.parts {
		if n, known := part.lag(); known {
			lags = append(lags, broadway.Lag{Source: part.name.topic, Partition: int(part.name.partition), Messages: n})
		}
	}
	return lags
}

// Health is nil, or why messages do not come: a broker that does not answer, a
// group that is not joined, a topic that does not exist, a stopped partition,
// commits that fail. That the group rebalances is no reason, until it takes longer
// than RebalanceTimeout or joining it fails twice.
func (p *Producer) Health() error {
	p.mu.Lock()
	s := p.session
	err := errors.Join(p.fatal, p.brokerErr)
	switch {
	case p.started && !p.rebalances():
		err = errors.Join(err, p.groupErr)
	case !p.started && err == nil:
		err = errors.New("kafka: not connected")
	}
	p.mu.Unlock()
	if s == nil {
		return err
	}
	return errors.Join(err, s.health())
}

// rebalances says whether the member is on its way back into its group, in time.
// Callers hold mu.
func (p *Producer) rebalances() bool {
	return !p.left.IsZero() && p.refusals < 2 && time.Since(p.left) < p.cfg.RebalanceTimeout
}

func (s *session) health() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := []error{s.unknown, s.commitErr}
	asked := map[int32]bool{}
	for _, p := range s.parts {
		errs = append(errs, p.failure)
		// A broker that leads nothing of ours is not asked, nor of interest.
		if b := s.brokers[p.leader.node]; b != nil && !asked[p.leader.node] {
			asked[p.leader.node] = true
			errs = append(errs, b.err)
		}
	}
	return errors.Join(errs...)
}
