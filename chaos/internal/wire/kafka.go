package wire

import (
	"encoding/binary"
	"fmt"
)

// Kafka's numbers of the requests that are read.
const (
	apiProduce       = 0
	apiCommit        = 8
	apiJoin          = 11
	apiLeave         = 13
	apiSASLHandshake = 17
)

// kafka follows one connection.
type kafka struct {
	link
	requests, answers frames
	waiting           []request // for their answers, which come in the same order
}

// request is what is remembered until its answer comes.
type request struct {
	api         int16 // -1: not read
	version     int16
	correlation int32
	events      []Event // that it told of
}

// api is a request that is read.
type api struct {
	first, last int16 // the versions that are known
	flexible    int16 // from this version on
	request     func(*reader, Event) []Event
	answer      func(*reader, Event) []Event
}

// apis are those that are read. The layouts are those of Apache Kafka's message definitions, as of version 4.1.
func apis(key int16) (api, bool) {
	switch key {
	case apiProduce:
		return api{3, 13, 9, produceRequest, produceAnswer}, true
	case apiCommit:
		return api{2, 10, 8, commitRequest, commitAnswer}, true
	case apiJoin:
		return api{0, 9, 6, joinRequest, joinAnswer}, true
	case apiLeave:
		return api{0, 5, 4, leaveRequest, leaveAnswer}, true
	}
	return api{}, false
}

// NewKafka returns a decoder of one connection to a Kafka broker, without TLS. emit must not block, nor call the decoder.
func NewKafka(conn int64, emit func(Event)) Decoder {
	k := &kafka{link: link{conn: conn, emit: emit}}
	k.requests = frames{head: 8, decide: k.judgeRequest, whole: k.readRequest}
	k.answers = frames{head: 4, decide: k.judgeAnswer, whole: k.readAnswer}
	return k
}

// Client takes what the client sent.
func (k *kafka) Client(at int64, p []byte) { k.feed(at, p, k.requests.feed) }

// Server takes what the broker sent.
func (k *kafka) Server(at int64, p []byte) { k.feed(at, p, k.answers.feed) }

func (k *kafka) judgeRequest(head []byte) (bool, error) {
	r := reader{b: head}
	key, version, correlation := r.int16(), r.int16(), r.int32()
	if key == apiSASLHandshake && version == 0 {
		return false, fmt.Errorf("SASL without frames")
	}
	known, wanted := apis(key)
	if !wanted {
		k.waiting = append(k.waiting, request{api: -1, correlation: correlation})
		return false, nil
	}
	if version < known.first || version > known.last {
		return false, fmt.Errorf("request %d of version %d, which is not known", key, version)
	}
	return true, nil
}

func (k *kafka) readRequest(at int64, frame []byte) error {
	r := &reader{b: frame}
	q := request{api: r.int16(), version: r.int16(), correlation: r.int32()}
	known, _ := apis(q.api)
	r.plain() // the client's id
	r.flexible = q.version >= known.flexible
	r.tags()
	q.events = known.request(r, Event{At: at, Conn: k.conn, Correlation: q.correlation, Version: q.version})
	if r.short {
		return fmt.Errorf("request %d of version %d is cut short", q.api, q.version)
	}
	k.tell(q.events)
	if q.api != apiProduce || !unanswered(q.events) {
		k.waiting = append(k.waiting, q)
	}
	return nil
}

func (k *kafka) judgeAnswer(head []byte) (bool, error) {
	if len(k.waiting) == 0 {
		return false, fmt.Errorf("an answer that nothing was asked for")
	}
	if correlation := int32(binary.BigEndian.Uint32(head)); correlation != k.waiting[0].correlation {
		return false, fmt.Errorf("an answer to %d instead of %d", correlation, k.waiting[0].correlation)
	}
	if k.waiting[0].api < 0 {
		k.waiting = k.waiting[1:]
		return false, nil
	}
	return true, nil
}

func (k *kafka) readAnswer(at int64, frame []byte) error {
	q := k.waiting[0]
	k.waiting = k.waiting[1:]
	known, _ := apis(q.api)
	r := &reader{b: frame}
	r.int32()
	r.flexible = q.version >= known.flexible
	r.tags()
	events := known.answer(r, Event{At: at, Conn: k.conn, Correlation: q.correlation, Version: q.version})
	if r.short {
		return fmt.Errorf("the answer to request %d of version %d is cut short", q.api, q.version)
	}
	complete(events, q.events)
	k.tell(events)
	return nil
}

// complete gives answers what only their requests tell.
func complete(answers, requests []Event) {
	for i := range answers {
		a := &answers[i]
		for _, q := range requests {
			if q.Topic != a.Topic || q.TopicID != a.TopicID || q.Partition != a.Partition {
				continue
			}
			a.Group = q.Group
			switch a.Kind {
			case CommitAnswer:
				a.Member, a.Generation, a.Offset, a.LeaderEpoch, a.Metadata = q.Member, q.Generation, q.Offset, q.LeaderEpoch, q.Metadata
			case ProduceAnswer:
				a.Count = q.Count
			case LeaveAnswer:
				a.Member = q.Member
			}
			break
		}
	}
}

func (k *kafka) tell(events []Event) {
	for _, e := range events {
		k.emit(e)
	}
}
