package kafka

import (
	"fmt"
	"io"
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// bodyOf is what reads the body of an answer: our own code for those with tagged
// fields, see fields.
func bodyOf(request kmsg.Request, response kmsg.Response) func(body []byte) error {
	if !response.IsFlexible() || request.Key() == kmsg.ApiVersions.Int16() {
		return response.ReadFrom
	}
	own := func(read func(*fields)) func([]byte) error {
		return func(body []byte) error {
			f := &fields{src: body}
			if read(f); f.bad {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
	}
	switch asked := request.(type) {
	case *kmsg.FetchRequest:
		return func(body []byte) error { return readFetch(response.(*kmsg.FetchResponse), asked, body) }
	case *kmsg.MetadataRequest:
		return own(func(f *fields) { readMetadata(f, response.(*kmsg.MetadataResponse), len(asked.Topics)) })
	case *kmsg.OffsetFetchRequest:
		return own(func(f *fields) { readOffsetFetch(f, response.(*kmsg.OffsetFetchResponse), asked) })
	case *kmsg.OffsetCommitRequest:
		return own(func(f *fields) { readOffsetCommit(f, response.(*kmsg.OffsetCommitResponse), asked) })
	}
	return func([]byte) error {
		return fmt.Errorf("version %d is not read here", response.GetVersion())
	}
}

// The least bytes that the elements of answers take.
const (
	leastBroker            = 11
	leastMetadataTopic     = 10
	leastMetadataPartition = 18
	leastReplica           = 4
	leastTopic             = 3
	leastOffset            = 20
	leastCommitted         = 7
)

// readMetadata reads an answer of version 9 to 12 about so many topics.
func readMetadata(f *fields, answer *kmsg.MetadataResponse, topics int) {
	answer.ThrottleMillis = f.int32()
	answer.Brokers = make([]kmsg.MetadataResponseBroker, f.count(leastBroker, math.MaxInt))
	for i := range answer.Brokers {
		b := &answer.Brokers[i]
		b.Default()
		b.NodeID, b.Host, b.Port, b.Rack = f.int32(), string(f.bytes()), f.int32(), f.text()
		f.tags(nil)
	}
	answer.ClusterID, answer.ControllerID = f.text(), f.int32()
	answer.Topics = make([]kmsg.MetadataResponseTopic, f.count(leastMetadataTopic, topics))
	for i := range answer.Topics {
		t := &answer.Topics[i]
		t.Default()
		t.ErrorCode, t.Topic = f.int16(), f.text()
		if answer.Version >= 10 {
			copy(t.TopicID[:], f.span(uint64(len(t.TopicID))))
		}
		t.IsInternal = f.bool()
		t.Partitions = make([]kmsg.MetadataResponseTopicPartition, f.count(leastMetadataPartition, math.MaxInt))
		for j := range t.Partitions {
			p := &t.Partitions[j]
			p.Default()
			p.ErrorCode, p.Partition, p.Leader, p.LeaderEpoch = f.int16(), f.int32(), f.int32(), f.int32()
			p.Replicas, p.ISR, p.OfflineReplicas = f.int32s(), f.int32s(), f.int32s()
			f.tags(nil)
		}
		t.AuthorizedOperations = f.int32()
		f.tags(nil)
	}
	if answer.Version <= 10 {
		answer.AuthorizedOperations = f.int32()
	}
	f.tags(nil)
}

// readOffsetFetch reads an answer of version 6 or 7.
func readOffsetFetch(f *fields, answer *kmsg.OffsetFetchResponse, asked *kmsg.OffsetFetchRequest) {
	left := 0 // partitions that may still come
	for _, t := range asked.Topics {
		left += len(t.Partitions)
	}
	answer.ThrottleMillis = f.int32()
	answer.Topics = make([]kmsg.OffsetFetchResponseTopic, f.count(leastTopic, len(asked.Topics)))
	for i := range answer.Topics {
		t := &answer.Topics[i]
		t.Default()
		t.Topic = string(f.bytes())
		t.Partitions = make([]kmsg.OffsetFetchResponseTopicPartition, f.count(leastOffset, left))
		left -= len(t.Partitions)
		for j := range t.Partitions {
			p := &t.Partitions[j]
			p.Default()
			p.Partition, p.Offset, p.LeaderEpoch = f.int32(), f.int64(), f.int32()
			p.Metadata, p.ErrorCode = f.text(), f.int16()
			f.tags(nil)
		}
		f.tags(nil)
	}
	answer.ErrorCode = f.int16()
	f.tags(nil)
}

// readOffsetCommit reads an answer of version 8 to 10.
func readOffsetCommit(f *fields, answer *kmsg.OffsetCommitResponse, asked *kmsg.OffsetCommitRequest) {
	left := 0 // partitions that may still come
	for _, t := range asked.Topics {
		left += len(t.Partitions)
	}
	answer.ThrottleMillis = f.int32()
	answer.Topics = make([]kmsg.OffsetCommitResponseTopic, f.count(leastTopic, len(asked.Topics)))
	for i := range answer.Topics {
		t := &answer.Topics[i]
		t.Default()
		if answer.Version >= 10 {
			copy(t.TopicID[:], f.span(uint64(len(t.TopicID))))
		} else {
			t.Topic = string(f.bytes())
		}
		t.Partitions = make([]kmsg.OffsetCommitResponseTopicPartition, f.count(leastCommitted, left))
		left -= len(t.Partitions)
		for j := range t.Partitions {
			p := &t.Partitions[j]
			p.Default()
			p.Partition, p.ErrorCode = f.int32(), f.int16()
			f.tags(nil)
		}
		f.tags(nil)
	}
	f.tags(nil)
}

// text is a string, nil for null.
func (f *fields) text() *string {
	b := f.bytes()
	if b == nil {
		return nil
	}
	s := string(b)
	return &s
}

func (f *fields) bool() bool {
	b := f.span(1)
	return b != nil && b[0] != 0
}

func (f *fields) int32s() []int32 {
	list := make([]int32, f.count(leastReplica, math.MaxInt))
	for i := range list {
		list[i] = f.int32()
	}
	return list
}
