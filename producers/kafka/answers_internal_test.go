package kafka

import (
	"bytes"
	"encoding/binary"
	"math"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// answered is a request with its answer in one of the versions that are read here.
type answered struct {
	request  kmsg.Request
	response kmsg.Response
}

func (a answered) frame() []byte {
	return append([]byte{0, 0, 0, 7, 0}, a.response.AppendTo(nil)...)
}

func as[T any](v T) *T { return &v }

// answers are examples of each version that has tagged fields and is asked for.
func answers() (all []answered) {
	for version := int16(9); version <= mostMetadata; version++ {
		request := kmsg.NewPtrMetadataRequest()
		request.Topics = make([]kmsg.MetadataRequestTopic, 2)
		response := kmsg.NewPtrMetadataResponse()
		response.ThrottleMillis, response.ClusterID, response.ControllerID = 3, as("cluster"), 1
		response.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 1, Host: "one", Port: 9, Rack: as("r")}, {NodeID: 2, Host: "two", Port: 8}}
		first := kmsg.MetadataResponseTopic{Topic: as("t"), IsInternal: true, AuthorizedOperations: 5}
		if version >= 10 {
			first.TopicID = [16]byte{1, 2, 3}
		}
		first.Partitions = []kmsg.MetadataResponseTopicPartition{
			{Partition: 0, Leader: 1, LeaderEpoch: 4, Replicas: []int32{1, 2}, ISR: []int32{1}, OfflineReplicas: []int32{2}},
			{Partition: 1, ErrorCode: 5, Leader: -1, LeaderEpoch: -1, Replicas: []int32{}, ISR: []int32{}, OfflineReplicas: []int32{}},
		}
		response.Topics = []kmsg.MetadataResponseTopic{first, {Topic: as("u"), ErrorCode: 3, Partitions: []kmsg.MetadataResponseTopicPartition{}}}
		if version <= 10 {
			response.AuthorizedOperations = 77
		}
		all = append(all, answered{request, response})
		request.SetVersion(version)
		response.SetVersion(version)
	}
	for version := int16(6); version <= mostOffsetFetch; version++ {
		request := kmsg.NewPtrOffsetFetchRequest()
		request.Topics = []kmsg.OffsetFetchRequestTopic{{Partitions: make([]int32, 2)}}
		response := kmsg.NewPtrOffsetFetchResponse()
		response.ThrottleMillis, response.ErrorCode = 1, 2
		response.Topics = []kmsg.OffsetFetchResponseTopic{{Topic: "t", Partitions: []kmsg.OffsetFetchResponseTopicPartition{
			{Partition: 1, Offset: 1 << 40, LeaderEpoch: 3, Metadata: as("note")}, {Partition: 2, Offset: -1, LeaderEpoch: -1, ErrorCode: 9},
		}}}
		all = append(all, answered{request, response})
		request.SetVersion(version)
		response.SetVersion(version)
	}
	for version := int16(8); version <= mostOffsetCommit; version++ {
		request := kmsg.NewPtrOffsetCommitRequest()
		request.Topics = []kmsg.OffsetCommitRequestTopic{{Partitions: make([]kmsg.OffsetCommitRequestTopicPartition, 2)}}
		response := kmsg.NewPtrOffsetCommitResponse()
		topic := kmsg.OffsetCommitResponseTopic{Topic: "t", Partitions: []kmsg.OffsetCommitResponseTopicPartition{{Partition: 1}, {Partition: 2, ErrorCode: 22}}}
		if version >= 10 {
			topic.Topic, topic.TopicID = "", [16]byte{4, 5}
		}
		response.Topics = append(response.Topics, topic)
		all = append(all, answered{request, response})
		request.SetVersion(version)
		response.SetVersion(version)
	}
	return all
}

// What is read here is what the codec that writes it means.
func TestAnswersWithTaggedFieldsAreRead(t *testing.T) {
	for _, a := range answers() {
		name := kmsg.NameForKey(a.request.Key())
		got, err := decodeResponse(a.frame(), a.request, 7)
		if err != nil || !reflect.DeepEqual(got, a.response) {
			t.Errorf("%s version %d: %+v, %v; want %+v", name, a.request.GetVersion(), got, err, a.response)
		}
		frame := a.frame()
		for n := 4; n < len(frame); n++ {
			if _, err := decodeResponse(frame[:n], a.request, 7); err == nil {
				t.Errorf("%s version %d: its first %d bytes were read", name, a.request.GetVersion(), n)
			}
		}
	}
}

// TestAnswersAnnounceWhatIsNotThere: whatever number stands where a count may be,
// reading ends at once, with an error or with less. At 2^32 tagged fields kmsg reads
// for minutes.
func TestAnswersAnnounceWhatIsNotThere(t *testing.T) {
	many := binary.AppendUvarint(nil, math.MaxUint32)
	for _, a := range answers() {
		frame := a.frame()
		for at := 4; at < len(frame); at++ {
			hostile := bytes.Join([][]byte{frame[:at], many, frame[at+1:]}, nil)
			response, err := decodeResponse(hostile, a.request, 7)
			if err == nil && len(response.AppendTo(nil)) > len(hostile)+64 {
				t.Errorf("%s version %d, at %d: %+v", kmsg.NameForKey(a.request.Key()), a.request.GetVersion(), at, response)
			}
		}
	}
}

// FuzzAnswer feeds whatever bytes an answer may have that is not one to Fetch.
func FuzzAnswer(f *testing.F) {
	for i, a := range answers() {
		f.Add(a.frame(), uint8(i))
	}
	f.Fuzz(func(t *testing.T, frame []byte, which uint8) {
		all := answers()
		a := all[int(which)%len(all)]
		response, err := decodeResponse(frame, a.request, 7)
		if err == nil && len(response.AppendTo(nil)) > 2*len(frame)+64 {
			t.Fatalf("%d bytes became %+v", len(frame), response)
		}
	})
}
