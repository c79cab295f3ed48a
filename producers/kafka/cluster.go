package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The highest versions that the code here understands. Where it can, it stays
// below those with tagged fields (see fields), or reads them itself.
const (
	mostMetadata        = 12 // topic ids since 10
	mostFindCoordinator = 2
	mostOffsetFetch     = 7  // stable offsets since 7; later ones ask for several groups at once
	mostOffsetCommit    = 10 // names topics by id since 10
	mostCommitByName    = 7
	mostHeartbeat       = 3
	mostListOffsets     = 5
	mostFetch           = 13 // followers since 11; 12 tells of truncation, 13 names topics by id
	mostFetchByName     = 12
	mostProduce         = 8 // errors per record since 8
)

// answerFrame bounds answers that hold no records.
const answerFrame = 16 << 20

// topicPartition names a partition.
type topicPartition struct {
	topic     string
	partition int32
}

// String is "topic/partition".
func (t topicPartition) String() string { return fmt.Sprintf("%s/%d", t.topic, t.partition) }

// leader is where a partition is led. epoch is -1 when the broker does not tell.
type leader struct {
	node, epoch int32
	err         error
}

// topicState is one topic as the cluster described it last.
type topicState struct {
	id         [16]byte // zero when the broker does not tell
	err        error    // why there are no partitions
	partitions map[int32]leader
}

// cluster asks what concerns the cluster and the group, rather than records.
type cluster struct {
	wire      *wire
	topics    []string
	group     string
	isolation Isolation

	mu          sync.Mutex // protects following fields
	coordinator int32      // anyBroker when it is not known
}

func newCluster(w *wire, cfg Config) *cluster {
	return &cluster{wire: w, topics: cfg.Topics, group: cfg.Group, isolation: cfg.Isolation, coordinator: anyBroker}
}

// describe asks for the present state of all topics.
func (c *cluster) describe() (map[string]topicState, error) {
	return c.wire.describe(context.Background(), c.topics)
}

// describe asks for the present state of topics. It never creates one.
func (w *wire) describe(ctx context.Context, topics []string) (map[string]topicState, error) {
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = []kmsg.MetadataRequestTopic{}
	for _, topic := range topics {
		request.Topics = append(request.Topics, kmsg.MetadataRequestTopic{Topic: &topic})
	}
	response, err := w.try(ctx, anyBroker, request, mostMetadata, answerFrame)
	if err != nil {
		return nil, err
	}
	answer, ok := response.(*kmsg.MetadataResponse)
	if !ok {
		return nil, unexpected(response)
	}
	for _, b := range answer.Brokers {
		w.learn(b.NodeID, b.Host, b.Port)
	}
	states := make(map[string]topicState, len(topics))
	for _, t := range answer.Topics {
		if t.Topic != nil {
			states[*t.Topic] = newTopicState(t, answer.Version)
		}
	}
	for _, topic := range topics {
		if _, told := states[topic]; !told {
			states[topic] = topicState{err: codeUnknownTopicOrPartition}
		}
	}
	return states, nil
}

func newTopicState(t kmsg.MetadataResponseTopic, version int16) topicState {
	state := topicState{id: t.TopicID, err: codeError(t.ErrorCode), partitions: make(map[int32]leader, len(t.Partitions))}
	for _, p := range t.Partitions {
		l := leader{node: p.Leader, epoch: p.LeaderEpoch, err: codeError(p.ErrorCode)}
		if version < 7 {
			l.epoch = -1
		}
		if l.err == nil && l.node < 0 {
			l.err = codeLeaderNotAvailable
		}
		state.partitions[p.Partition] = l
	}
	return state
}

// coordinate sends request to the group's coordinator. After an error of the
// connection, and when the caller calls lose, the coordinator is looked for
// anew.
func (c *cluster) coordinate(request kmsg.Request, most int16) (kmsg.Response, error) {
	node, err := c.find()
	if err != nil {
		return nil, err
	}
	response, err := c.wire.ask(node, request, most, answerFrame)
	if err != nil {
		c.lose()
	}
	return response, err
}

func (c *cluster) find() (int32, error) {
	c.mu.Lock()
	node := c.coordinator
	c.mu.Unlock()
	if node != anyBroker {
		return node, nil
	}
	request := kmsg.NewPtrFindCoordinatorRequest()
	request.CoordinatorKey = c.group
	response, err := c.wire.ask(anyBroker, request, mostFindCoordinator, answerFrame)
	if err != nil {
		return 0, err
	}
	answer, ok := response.(*kmsg.FindCoordinatorResponse)
	if !ok {
		return 0, unexpected(response)
	}
	if answer.ErrorCode != 0 {
		return 0, fmt.Errorf("kafka: finding the coordinator of group %s: %w", c.group, codeError(answer.ErrorCode))
	}
	c.wire.learn(answer.NodeID, answer.Host, answer.Port)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.coordinator = answer.NodeID
	return answer.NodeID, nil
}

// lose forgets the coordinator.
func (c *cluster) lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.coordinator = anyBroker
}

// committedOffset is what a group has committed of a partition.
type committedOffset struct {
	next     int64
	epoch    int32 // the leader epoch of the record before next, -1 when it was not told
	metadata string
}

// committed asks for the group's offsets. Partitions without one are left out.
func (c *cluster) committed(partitions []topicPartition) (map[topicPartition]committedOffset, error) {
	request := kmsg.NewPtrOffsetFetchRequest()
	request.Group = c.group
	request.RequireStable = true
	var topics byTopic[kmsg.OffsetFetchRequestTopic]
	for _, p := range partitions {
		t := topics.of(p.topic, kmsg.NewOffsetFetchRequestTopic)
		t.Topic, t.Partitions = p.topic, append(t.Partitions, p.partition)
	}
	request.Topics = topics.list
	response, err := c.coordinate(request, mostOffsetFetch)
	if err != nil {
		return nil, err
	}
	answer, ok := response.(*kmsg.OffsetFetchResponse)
	if !ok {
		return nil, unexpected(response)
	}
	offsets := map[topicPartition]committedOffset{}
	err = codeError(answer.ErrorCode)
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				err = fmt.Errorf("%s/%d: %w", t.Topic, p.Partition, codeError(p.ErrorCode))
			} else if p.Offset >= 0 {
				found := committedOffset{next: p.Offset, epoch: -1}
				if answer.Version >= 5 {
					found.epoch = p.LeaderEpoch
				}
				if p.Metadata != nil {
					found.metadata = *p.Metadata
				}
				offsets[topicPartition{t.Topic, p.Partition}] = found
			}
		}
	}
	if err != nil {
		if codeOf(err).lostCoordinator() {
			c.lose()
		}
		return nil, fmt.Errorf("kafka: committed offsets of group %s: %w", c.group, err)
	}
	return offsets, nil
}

// member is who commits and gives signs of life.
type member struct {
	id         string
	generation int32
}

// commitment is one partition's part of a commit.
type commitment struct {
	partition topicPartition
	topicID   [16]byte // zero when it is not known
	next      int64
	epoch     int32 // the leader epoch of the last settled message, or -1
	metadata  string

	// What is true once the rest is durable: see [ownership.committed].
	own             *ownership
	marks           marks
	settled, untold int64
}

// commit makes offsets durable and tells each partition's outcome; err is for
// what concerns all.
func (c *cluster) commit(m member, commitments []commitment) (map[topicPartition]code, error) {
	request := kmsg.NewPtrOffsetCommitRequest()
	request.Group, request.Generation, request.MemberID = c.group, m.generation, m.id
	request.RetentionTimeMillis = -1
	var topics byTopic[kmsg.OffsetCommitRequestTopic]
	names, most := map[[16]byte]string{}, int16(mostOffsetCommit)
	for _, item := range commitments {
		names[item.topicID] = item.partition.topic
		if item.topicID == [16]byte{} {
			most = mostCommitByName
		}
		t := topics.of(item.partition.topic, kmsg.NewOffsetCommitRequestTopic)
		t.Topic, t.TopicID = item.partition.topic, item.topicID
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.LeaderEpoch = item.partition.partition, item.next, item.epoch
		p.Metadata = &item.metadata
		t.Partitions = append(t.Partitions, p)
	}
	request.Topics = topics.list
	response, err := c.coordinate(request, most)
	if err != nil {
		return nil, err
	}
	answer, ok := response.(*kmsg.OffsetCommitResponse)
	if !ok {
		return nil, unexpected(response)
	}
	codes := make(map[topicPartition]code, len(commitments))
	for _, t := range answer.Topics {
		if answer.Version >= 10 {
			t.Topic = names[t.TopicID]
		}
		for _, p := range t.Partitions {
			codes[topicPartition{t.Topic, p.Partition}] = code(p.ErrorCode)
			if code(p.ErrorCode).lostCoordinator() {
				c.lose()
			}
		}
	}
	return codes, nil
}

// heartbeat is a sign of life. Its error holds the code.
func (c *cluster) heartbeat(m member) error {
	request := kmsg.NewPtrHeartbeatRequest()
	request.Group, request.Generation, request.MemberID = c.group, m.generation, m.id
	response, err := c.coordinate(request, mostHeartbeat)
	if err != nil {
		return err
	}
	answer, ok := response.(*kmsg.HeartbeatResponse)
	if !ok {
		return unexpected(response)
	}
	if code(answer.ErrorCode).lostCoordinator() {
		c.lose()
	}
	return codeError(answer.ErrorCode)
}

// offsetQuery asks a leader where a timestamp is in a partition: -2 means the
// beginning, -1 the end.
type offsetQuery struct {
	partition topicPartition
	epoch     int32
	timestamp int64
}

const (
	// timestampEpoch is no question for an offset, but where a leader epoch ends.
	timestampEpoch    = -100
	timestampEarliest = -2
	timestampLatest   = -1
)

// offsetAnswer is the offset, -1 when no message is that young; or why not.
type offsetAnswer struct {
	offset int64
	code   code
}

// offsets asks one leader.
func (c *cluster) offsets(node int32, queries []offsetQuery) (map[topicPartition]offsetAnswer, error) {
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID = -1
	request.IsolationLevel = int8(c.isolation)
	var topics byTopic[kmsg.ListOffsetsRequestTopic]
	for _, q := range queries {
		t := topics.of(q.partition.topic, kmsg.NewListOffsetsRequestTopic)
		t.Topic = q.partition.topic
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.CurrentLeaderEpoch, p.Timestamp = q.partition.partition, q.epoch, q.timestamp
		t.Partitions = append(t.Partitions, p)
	}
	request.Topics = topics.list
	response, err := c.wire.ask(node, request, mostListOffsets, answerFrame)
	if err != nil {
		return nil, err
	}
	answer, ok := response.(*kmsg.ListOffsetsResponse)
	if !ok {
		return nil, unexpected(response)
	}
	if answer.Version < 1 {
		return nil, errors.New("kafka: the broker is older than 0.10.1")
	}
	answers := make(map[topicPartition]offsetAnswer, len(queries))
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			answers[topicPartition{t.Topic, p.Partition}] = offsetAnswer{p.Offset, code(p.ErrorCode)}
		}
	}
	return answers, nil
}

// byTopic is what a request has of each topic, in the order in which they came.
type byTopic[T any] struct {
	list []T
	at   map[string]int
}

// of is what there is of topic, at first what fresh makes. It is not to be kept.
func (b *byTopic[T]) of(topic string, fresh func() T) *T {
	i, known := b.at[topic]
	if !known {
		if b.at == nil {
			b.at = map[string]int{}
		}
		i = len(b.list)
		b.at[topic] = i
		b.list = append(b.list, fresh())
	}
	return &b.list[i]
}

func unexpected(response kmsg.Response) error {
	return fmt.Errorf("kafka: unexpected answer %T", response)
}
