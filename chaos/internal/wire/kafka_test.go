package wire

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

// An exchange is one request and its answer, as bytes.
type exchange struct{ request, answer []byte }

// encode makes frames of messages of another implementation: what it writes is what brokers and clients read.
func encode(request kmsg.Request, answer kmsg.Response, version int16, correlation int32) exchange {
	request.SetVersion(version)
	answer.SetVersion(version)
	body := binary.BigEndian.AppendUint32(nil, uint32(correlation))
	if answer.IsFlexible() {
		body = append(body, 0)
	}
	body = answer.AppendTo(body)
	return exchange{
		request: kmsg.NewRequestFormatter(kmsg.FormatterClientID("me")).AppendRequest(nil, request, correlation),
		answer:  append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...),
	}
}

var topicID = [16]byte{0xAB, 15: 0xCD}

func commitExchange(version int16, correlation int32) exchange {
	request, answer := kmsg.NewPtrOffsetCommitRequest(), kmsg.NewPtrOffsetCommitResponse()
	request.Group, request.Generation, request.MemberID = "g", 7, "m"
	request.InstanceID = kmsg.StringPtr("static")
	for _, topic := range []string{"t", "u"} {
		t, a := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitResponseTopic()
		t.Topic, t.TopicID, a.Topic, a.TopicID = topic, topicID, topic, topicID
		t.TopicID[1], a.TopicID[1] = topic[0], topic[0]
		for p := range int32(2) {
			tp, ap := kmsg.NewOffsetCommitRequestTopicPartition(), kmsg.NewOffsetCommitResponseTopicPartition()
			tp.Partition, tp.Offset, tp.LeaderEpoch, tp.Metadata = p, math.MaxInt64-int64(p), 3, kmsg.StringPtr("meta")
			ap.Partition, ap.ErrorCode = p, int16(p)*22
			t.Partitions, a.Partitions = append(t.Partitions, tp), append(a.Partitions, ap)
		}
		request.Topics, answer.Topics = append(request.Topics, t), append(answer.Topics, a)
	}
	return encode(request, answer, version, correlation)
}

func produceExchange(version int16, correlation int32, acks int16) exchange {
	request, answer := kmsg.NewPtrProduceRequest(), kmsg.NewPtrProduceResponse()
	request.Acks, request.TransactionID = acks, kmsg.StringPtr("tx")
	t, a := kmsg.NewProduceRequestTopic(), kmsg.NewProduceResponseTopic()
	t.Topic, t.TopicID, a.Topic, a.TopicID = "dead", topicID, "dead", topicID
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition = 4
	for _, records := range []int32{3, 39} {
		batch := kmsg.RecordBatch{Magic: 2, NumRecords: records, Records: []byte("not looked at")}
		batch.Length = int32(len(batch.AppendTo(nil)) - 12)
		p.Records = batch.AppendTo(p.Records)
	}
	t.Partitions = append(t.Partitions, p)
	ap := kmsg.NewProduceResponseTopicPartition()
	ap.Partition, ap.BaseOffset = 4, 1000
	refused := kmsg.NewProduceResponseTopicPartitionErrorRecord()
	refused.ErrorMessage = kmsg.StringPtr("too old")
	ap.ErrorRecords = append(ap.ErrorRecords, refused)
	ap.CurrentLeader.LeaderID = 9
	a.Partitions = append(a.Partitions, ap)
	request.Topics, answer.Topics = append(request.Topics, t), append(answer.Topics, a)
	return encode(request, answer, version, correlation)
}

// follow gives exchanges to a decoder, whole.
func follow(exchanges ...exchange) []Event {
	var events []Event
	d := NewKafka(5, func(e Event) { events = append(events, e) })
	for i, x := range exchanges {
		d.Client(int64(10*i+1), x.request)
		d.Server(int64(10*i+2), x.answer)
	}
	return events
}

func TestCommitsOfEveryVersionAreRead(t *testing.T) {
	for version := int16(2); version <= 10; version++ {
		var want []Event
		for kind := range 2 {
			for _, topic := range []string{"t", "u"} {
				for p := range int32(2) {
					e := Event{
						Kind: Commit, At: 1, Conn: 5, Correlation: 99, Version: version, Group: "g", Member: "m", Generation: 7,
						Topic: topic, Partition: p, Offset: math.MaxInt64 - int64(p), LeaderEpoch: 3, Metadata: "meta",
					}
					if version >= 10 {
						e.Topic, e.TopicID = "", map[string]string{"t": "ab74", "u": "ab75"}[topic]+"00000000000000000000000000cd"
					}
					if version < 6 {
						e.LeaderEpoch = -1
					}
					if kind == 1 {
						e.Kind, e.At, e.Code = CommitAnswer, 2, int(p)*22
					}
					want = append(want, e)
				}
			}
		}
		if got := follow(commitExchange(version, 99)); !slices.Equal(got, want) {
			t.Errorf("version %d:\ngot  %+v\nwant %+v", version, got, want)
		}
	}
}

func TestMembersAreNamed(t *testing.T) {
	for version := range int16(10) {
		request, answer := kmsg.NewPtrJoinGroupRequest(), kmsg.NewPtrJoinGroupResponse()
		request.Group, request.MemberID, request.ProtocolType = "g", "old", "consumer"
		answer.Generation, answer.MemberID, answer.ErrorCode, answer.LeaderID = 8, "new", 79, "leader"
		answer.Protocol, answer.ProtocolType = kmsg.StringPtr("range"), kmsg.StringPtr("consumer")
		got := follow(encode(request, answer, version, 1))
		if len(got) != 2 || got[0].Kind != Join || got[0].Group != "g" || got[0].Member != "old" ||
			got[1].Kind != JoinAnswer || got[1].Member != "new" || got[1].Generation != 8 || got[1].Code != 79 || got[1].Group != "g" {
			t.Errorf("join %d: %+v", version, got)
		}
	}
	for version := range int16(6) {
		request, answer := kmsg.NewPtrLeaveGroupRequest(), kmsg.NewPtrLeaveGroupResponse()
		request.Group, request.MemberID = "g", "m"
		request.Members = []kmsg.LeaveGroupRequestMember{{MemberID: "m", Reason: kmsg.StringPtr("why")}}
		got := follow(encode(request, answer, version, 1))
		if len(got) != 2 || got[0].Kind != Leave || got[0].Member != "m" || got[1].Kind != LeaveAnswer || got[1].Member != "m" {
			t.Errorf("leave %d: %+v", version, got)
		}
	}
}

func TestProducedRecordsAreCounted(t *testing.T) {
	for version := int16(3); version <= 13; version++ {
		got := follow(produceExchange(version, 1, -1))
		want := Event{Kind: Produce, At: 1, Conn: 5, Correlation: 1, Version: version, Topic: "dead", Partition: 4, Count: 42, Code: -1}
		if version >= 13 {
			want.Topic, want.TopicID = "", "ab0000000000000000000000000000cd"
		}
		answer := want
		answer.Kind, answer.At, answer.Offset, answer.Code = ProduceAnswer, 2, 1000, 0
		if !slices.Equal(got, []Event{want, answer}) {
			t.Errorf("version %d: %+v", version, got)
		}
	}
}

// Without acknowledgement there is no answer: the next one belongs to the next request.
func TestAProduceWithoutAnswerIsNotWaitedFor(t *testing.T) {
	silent := produceExchange(8, 1, 0)
	silent.answer = nil
	got := follow(silent, commitExchange(7, 2))
	if len(got) != 9 || got[8].Kind != CommitAnswer {
		t.Errorf("%+v", got)
	}
}

func TestWhatIsNotKnownIsTold(t *testing.T) {
	handshake := kmsg.NewPtrSASLHandshakeRequest()
	old := commitExchange(2, 1)
	binary.BigEndian.PutUint16(old.request[6:], 1)
	future := commitExchange(9, 1)
	binary.BigEndian.PutUint16(future.request[6:], 11)
	swapped := commitExchange(7, 1)
	swapped.answer = commitExchange(7, 2).answer
	longer := commitExchange(7, 1)
	longer.request = append(longer.request, 0)
	longer.request[3]++
	sets := produceExchange(3, 1, -1)
	sets.request[bytes.Index(sets.request, []byte("not looked"))-61+16] = 1
	for name, x := range map[string]exchange{
		"an older commit":      old,
		"a newer commit":       future,
		"another's answer":     swapped,
		"bytes left over":      longer,
		"message sets":         sets,
		"SASL without frames":  encode(handshake, kmsg.NewPtrSASLHandshakeResponse(), 0, 1),
		"TLS":                  {request: []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3, 0}},
		"a negative length":    {request: []byte{0xFF, 0xFF, 0xFF, 0xFF}},
		"a length of nothing":  {request: []byte{0, 0, 0, 2, 0, 0}},
		"an answer to nothing": {answer: []byte{0, 0, 0, 4, 0, 0, 0, 1}},
	} {
		got := follow(x, commitExchange(7, 5))
		if len(got) == 0 || got[len(got)-1].Kind != Undecodable || got[len(got)-1].Text == "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// conversation is a stream with all that is read, and something that is not.
func conversation() (client, server []byte) {
	metadata := kmsg.NewPtrMetadataRequest()
	for i, x := range []exchange{
		encode(metadata, kmsg.NewPtrMetadataResponse(), 12, 0), commitExchange(7, 1), produceExchange(8, 2, -1),
		commitExchange(9, 3), encode(metadata, kmsg.NewPtrMetadataResponse(), 4, 4), produceExchange(12, 5, 1), commitExchange(10, 6),
	} {
		_ = i
		client, server = append(client, x.request...), append(server, x.answer...)
	}
	return client, server
}

func TestSplitsOfBytesDoNotMatter(t *testing.T) {
	client, server := conversation()
	want := follow(exchange{client, server})
	for i := range want {
		want[i].At = 0
	}
	rapid.Check(t, func(t *rapid.T) {
		var got []Event
		d := NewKafka(5, func(e Event) { e.At = 0; got = append(got, e) })
		feed := func(p []byte, side func(int64, []byte)) {
			for len(p) > 0 {
				n := rapid.IntRange(1, min(len(p), 40)).Draw(t, "n")
				side(0, bytes.Clone(p[:n]))
				p = p[n:]
			}
		}
		feed(client, d.Client)
		feed(server, d.Server)
		if !slices.Equal(got, want) {
			t.Fatalf("got %+v\nwant %+v", got, want)
		}
	})
}

func FuzzKafka(f *testing.F) {
	client, server := conversation()
	f.Add(client, server, 7)
	f.Fuzz(func(t *testing.T, client, server []byte, cut int) { fuzz(t, NewKafka, client, server, cut) })
}

// fuzz holds what holds of any bytes: no panic, one failure at most and nothing after it, whatever the split.
func fuzz(t *testing.T, decoder func(int64, func(Event)) Decoder, client, server []byte, cut int) {
	run := func(cut int) (events []Event) {
		d := decoder(1, func(e Event) { events = append(events, e) })
		for _, side := range []struct {
			p    []byte
			feed func(int64, []byte)
		}{{client, d.Client}, {server, d.Server}} {
			for p := range slices.Chunk(side.p, cut) {
				side.feed(0, p)
			}
		}
		d.Close(0)
		return events
	}
	whole, split := run(1<<20), run(1+int(uint(cut)%64))
	if !slices.Equal(whole, split) {
		t.Fatalf("whole %+v\nsplit %+v", whole, split)
	}
	for i, e := range whole {
		if e.Kind == Undecodable && i != len(whole)-2 {
			t.Fatalf("events after a failure: %+v", whole)
		}
	}
}
