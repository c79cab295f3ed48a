package kafka

import (
	"github.com/twmb/franz-go/pkg/kmsg"
)

// mostEpochEnds is the highest version without tagged fields. From 2 on the
// question carries the leader epoch that the asker knows of.
const mostEpochEnds = 3

// epochQuery asks a leader where a leader epoch ends in its log.
type epochQuery struct {
	partition topicPartition
	current   int32 // the leader's epoch as it is known, -1 for not at all
	epoch     int32 // the one that is asked for
}

// epochEnd is what a leader knows: the largest epoch not above the one that was
// asked for, and the offset after its last record; both are -1 when all that the
// leader knows of are below the one asked for (as in a log that does not hold it, a
// recreated topic's for example). Of an epoch older than the log, the end is where
// the log's first epoch begins.
type epochEnd struct {
	epoch int32
	end   int64
	code  code
}

// epochEnds asks one leader. What it has left out is not in the map.
func (c *cluster) epochEnds(node int32, queries []epochQuery) (map[topicPartition]epochEnd, error) {
	request := kmsg.NewPtrOffsetForLeaderEpochRequest()
	request.ReplicaID = -1
	var topics byTopic[kmsg.OffsetForLeaderEpochRequestTopic]
	for _, q := range queries {
		t := topics.of(q.partition.topic, kmsg.NewOffsetForLeaderEpochRequestTopic)
		t.Topic = q.partition.topic
		p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		p.Partition, p.CurrentLeaderEpoch, p.LeaderEpoch = q.partition.partition, q.current, q.epoch
		t.Partitions = append(t.Partitions, p)
	}
	request.Topics = topics.list
	response, err := c.wire.ask(node, request, mostEpochEnds, answerFrame)
	if err != nil {
		return nil, err
	}
	answer, ok := response.(*kmsg.OffsetForLeaderEpochResponse)
	if !ok {
		return nil, unexpected(response)
	}
	ends := make(map[topicPartition]epochEnd, len(queries))
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			ends[topicPartition{t.Topic, p.Partition}] = epochEnd{p.LeaderEpoch, p.EndOffset, code(p.ErrorCode)}
		}
	}
	return ends, nil
}
