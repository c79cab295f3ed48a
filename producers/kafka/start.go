package kafka

import "errors"

// subscribed is a topic as the producer saw it first, all zero when it did not
// exist then.
type subscribed struct {
	id         [16]byte // zero when the broker does not tell
	partitions int
}

// notice keeps what a topic was when the producer saw it first. Callers hold mu.
func (p *Producer) notice(topic string, state topicState) {
	if _, known := p.first[topic]; known || state.err != nil && !errors.Is(state.err, codeUnknownTopicOrPartition) {
		return
	}
	p.first[topic] = subscribed{state.id, len(state.partitions)}
}

// younger says whether a partition appeared after the producer saw its topic first,
// or saw that there was none: everything in it came after the subscription.
func (p *Producer) younger(name topicPartition, id [16]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first, known := p.first[name.topic]
	return known && (int(name.partition) >= first.partitions || first.id != id && first.id != [16]byte{})
}

// partitionsOf are all partitions of a topic, as told last.
func (p *Producer) partitionsOf(topic string) (all []topicPartition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.counts[topic] {
		all = append(all, topicPartition{topic, int32(i)})
	}
	return all
}

// newcomers makes those partitions of a plan begin at their start that would begin
// at their end and are new: what is in them came after the subscription, and nobody
// has read it. New is what this producer has known the topic without; and what the
// group has, since it commits the end at which a partition begins at once, so that
// one without a commit among others that have one appeared since.
func (s *session) newcomers(p *plan) error {
	if s.cfg.StartAt.kind != startLatest {
		return nil
	}
	read := map[string]bool{} // by topic: whether the group has a commit of it
	for i := range p.queries {
		q := &p.queries[i]
		if !p.starts[i] {
			continue
		}
		fresh := s.producer.younger(q.partition, p.ids[i])
		if _, asked := read[q.partition.topic]; !fresh && !asked {
			offsets, err := s.cluster.committed(s.producer.partitionsOf(q.partition.topic))
			if err != nil {
				return err
			}
			read[q.partition.topic] = len(offsets) > 0
		}
		if fresh || read[q.partition.topic] {
			q.timestamp = timestampEarliest
			s.log.Info("kafka: new partition begins at its start", "partition", q.partition.String())
		}
	}
	return nil
}
