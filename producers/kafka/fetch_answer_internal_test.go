package kafka

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// askFor is a request for topics of so many partitions each.
func askFor(version int16, topics, partitions int) *kmsg.FetchRequest {
	request := kmsg.NewPtrFetchRequest()
	request.SetVersion(version)
	for range topics {
		t := kmsg.NewFetchRequestTopic()
		t.Partitions = make([]kmsg.FetchRequestTopicPartition, partitions)
		request.Topics = append(request.Topics, t)
	}
	return request
}

// TestAnAnswerHoldsNoMoreThanWasAsked: topics and partitions take a few bytes on the
// wire and a hundred in memory, so that an answer full of them would take gigabytes.
func TestAnAnswerHoldsNoMoreThanWasAsked(t *testing.T) {
	const size = 8 << 20
	for _, version := range []int16{12, 13} {
		for what, least := range map[string]int{"topics": leastFetchTopic, "partitions": leastFetchPartition} {
			head := []byte{0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
			if what == "partitions" {
				head = append(head, 2) // one topic
				if version == 12 {
					head = append(head, 2, 't')
				} else {
					head = append(head, make([]byte, 16)...)
				}
			}
			head = binary.AppendUvarint(head, uint64(size/least))
			frame := append(head, make([]byte, size)...)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := decodeResponse(frame, askFor(version, 3, 2), 7)
			runtime.ReadMemStats(&after)
			if grown := after.TotalAlloc - before.TotalAlloc; err == nil || grown > 1<<20 {
				t.Errorf("version %d, %s: an answer of %d bytes took %d, and the error is %v", version, what, size, grown, err)
			}
		}
	}
}
