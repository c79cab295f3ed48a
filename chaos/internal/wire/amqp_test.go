package wire

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// frame and its helpers write AMQP as its specification has it.
func frame(kind byte, channel uint16, payload ...byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{kind}, channel)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(append(b, payload...), frameEnd)
}

func method(channel uint16, id uint32, arguments ...any) []byte {
	return frame(frameMethod, channel, fields(append([]any{id}, arguments...)...)...)
}

// fields writes values in turn: strings are short strings, bools are one bit in one byte.
func fields(values ...any) (b []byte) {
	for _, v := range values {
		switch v := v.(type) {
		case byte:
			b = append(b, v)
		case uint16:
			b = binary.BigEndian.AppendUint16(b, v)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, v)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, v)
		case string:
			b = append(append(b, byte(len(v))), v...)
		}
	}
	return b
}

// message writes what follows a method that has a content: every property up to the id, and the timestamp behind it.
func message(channel uint16, id string, bodies ...string) []byte {
	body := strings.Join(bodies, "")
	header := fields(uint16(60), uint16(0), uint64(len(body)), uint16(0xFFC0),
		"text/plain", "utf-8", uint32(5), byte(1), "k"[0:1], byte('t'), byte(1), byte(2), byte(9), "corr", "reply", "1000", id, uint64(12))
	b := frame(frameHeader, channel, header...)
	for _, body := range bodies {
		b = append(b, frame(frameBody, channel, []byte(body)...)...)
	}
	return b
}

func talk(client, server []byte) []Event {
	var events []Event
	d := NewAMQP(5, func(e Event) { events = append(events, e) })
	d.Client(1, append([]byte("AMQP\x00\x00\x09\x01"), client...))
	d.Server(2, server)
	return events
}

func TestDeliveriesAndAcksAreRead(t *testing.T) {
	opened := method(1, channelOpen, "")
	consume := method(1, basicConsume, uint16(0), "q", "", byte(0), uint32(0))
	client := slices.Concat(opened, consume,
		method(1, basicAck, uint64(3), byte(1)), method(1, basicNack, uint64(4), byte(3)), method(1, basicReject, uint64(5), byte(0)),
		method(1, basicCancel, "c-1", byte(0)), frame(frameHeartbeat, 0))
	server := slices.Concat(method(1, basicConsumeOK, "c-1"),
		method(1, basicDeliver, "c-1", uint64(1), byte(1), "x", "key"), message(1, "id-1", "body", strings.Repeat("x", 300)),
		method(1, basicGetOK, uint64(2), byte(0), "x", "key", uint32(9)), message(1, "id-2"),
		method(1, basicCancel, "c-1", byte(1)), frame(frameHeartbeat, 0),
		method(1, channelClose, uint16(406), "PRECONDITION_FAILED", uint16(60), uint16(80)),
		method(0, connectionBlocked, "memory"), method(0, connectionUnblocked),
		method(0, connectionClose, uint16(320), "CONNECTION_FORCED", uint16(0), uint16(0)))
	e := Event{At: 1, Conn: 5, Channel: 1, Session: 1}
	want := []Event{
		with(e, Event{Kind: ChannelOpen}),
		with(e, Event{Kind: Consume, Queue: "q"}),
		with(e, Event{Kind: Ack, Tag: 3, Multiple: true}),
		with(e, Event{Kind: Nack, Tag: 4, Multiple: true, Requeue: true}),
		with(e, Event{Kind: Reject, Tag: 5}),
		with(e, Event{Kind: Cancel, Consumer: "c-1"}),
	}
	e.At = 2
	want = append(want,
		with(e, Event{Kind: Deliver, Tag: 1, Redelivered: true, Consumer: "c-1", Queue: "q", Exchange: "x", RoutingKey: "key", ID: "id-1"}),
		with(e, Event{Kind: GetOK, Tag: 2, Exchange: "x", RoutingKey: "key", ID: "id-2"}),
		with(e, Event{Kind: CancelServer, Consumer: "c-1"}),
		with(e, Event{Kind: ChannelClose, Code: 406, Text: "PRECONDITION_FAILED"}),
		Event{Kind: Blocked, At: 2, Conn: 5, Text: "memory"},
		Event{Kind: Unblocked, At: 2, Conn: 5},
		Event{Kind: ConnClose, At: 2, Conn: 5, Code: 320, Text: "CONNECTION_FORCED"},
	)
	if got := talk(client, server); !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// with puts the place of an event into it.
func with(place, e Event) Event {
	e.At, e.Conn, e.Channel, e.Session = place.At, place.Conn, place.Channel, place.Session
	return e
}

func TestPublishingsAreNumberedOnceTheyAreConfirmed(t *testing.T) {
	publish := func(id string) []byte {
		return append(method(2, basicPublish, uint16(0), "", "dead", byte(1)), message(2, id, "b")...)
	}
	client := slices.Concat(method(2, channelOpen, ""), publish("a"), method(2, confirmSelect, byte(0)), publish("b"), publish("c"))
	server := slices.Concat(
		method(2, basicReturn, uint16(312), "NO_ROUTE", "", "dead"), message(2, "c", "b"),
		method(2, basicAck, uint64(2), byte(1)), method(2, basicNack, uint64(3), byte(0)))
	var got []Event
	for _, e := range talk(client, server) {
		got = append(got, Event{Kind: e.Kind, ID: e.ID, Tag: e.Tag, Multiple: e.Multiple, Code: e.Code})
	}
	want := []Event{
		{Kind: ChannelOpen}, {Kind: Publish, ID: "a"}, {Kind: Publish, ID: "b", Tag: 1}, {Kind: Publish, ID: "c", Tag: 2},
		{Kind: Return, ID: "c", Code: 312}, {Kind: Confirm, Tag: 2, Multiple: true}, {Kind: Unconfirm, Tag: 3},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// A channel number that is opened again has tags, confirms and consumers of its own.
func TestAChannelThatIsOpenedAgainIsAnother(t *testing.T) {
	client := slices.Concat(method(1, channelOpen, ""), method(1, confirmSelect, byte(0)),
		method(1, basicConsume, uint16(0), "q", "c", byte(2), uint32(0)), method(1, channelOpen, ""),
		method(1, basicPublish, uint16(0), "", "k", byte(0)), message(1, "a"))
	server := slices.Concat(method(1, basicDeliver, "c", uint64(1), byte(0), "", ""), message(1, "b"))
	got := talk(client, server)
	if len(got) != 5 || got[0].Session != 1 || got[2].Session != 2 || got[3].Tag != 0 || got[4].Session != 2 || got[4].Queue != "" {
		t.Errorf("%+v", got)
	}
	if !got[1].NoAck {
		t.Errorf("%+v was asked to come settled", got[1])
	}
}

func TestAMQPThatCannotBeIsTold(t *testing.T) {
	unended := method(1, basicAck, uint64(1), byte(0))
	unended[len(unended)-1] = 0
	deliver := method(1, basicDeliver, "c", uint64(1), byte(0), "", "")
	for name, server := range map[string][]byte{
		"a frame without its end":     unended,
		"a type that is none":         frame(4, 1),
		"a size that is none":         {frameBody, 0, 1, 0xFF, 0, 0, 0},
		"a header without a method":   frame(frameHeader, 1, fields(uint16(60), uint16(0), uint64(0), uint16(0))...),
		"a body without a header":     slices.Concat(deliver, frame(frameBody, 1, 'x')),
		"a body that is too long":     slices.Concat(deliver, message(1, "a"), frame(frameBody, 1, 'x')),
		"a method within a message":   slices.Concat(deliver, deliver),
		"a method that is cut short":  method(1, basicAck, uint32(1)),
		"a header that is cut short":  slices.Concat(deliver, frame(frameHeader, 1, fields(uint16(60), uint16(0), uint64(0), uint16(1<<7))...)),
		"a heartbeat with something":  frame(frameHeartbeat, 0, 1),
		"the answer to another world": []byte("HTTP/1.1 400 Bad Request\r\n"),
		"another version of AMQP":     []byte("AMQP\x00\x00\x09\x01"),
	} {
		got := talk(nil, append(server, method(1, basicAck, uint64(9), byte(0))...))
		if len(got) == 0 || got[len(got)-1].Kind != Undecodable {
			t.Errorf("%s: %+v", name, got)
		}
	}
	var got []Event
	d := NewAMQP(1, func(e Event) { got = append(got, e) })
	d.Client(0, []byte("AMQP\x00\x01\x00\x00"))
	if len(got) != 1 || got[0].Kind != Undecodable {
		t.Errorf("AMQP 1.0: %+v", got)
	}
}

func amqpConversation() (client, server []byte) {
	return slices.Concat([]byte("AMQP\x00\x00\x09\x01"), method(1, channelOpen, ""), method(1, confirmSelect, byte(0)),
			method(1, basicPublish, uint16(0), "x", "k", byte(0)), message(1, "a", "b", "c"), method(1, basicAck, uint64(3), byte(1))),
		slices.Concat(method(1, basicDeliver, "c", uint64(3), byte(0), "", ""), message(1, "b", strings.Repeat("y", 200)),
			method(1, basicAck, uint64(1), byte(0)), frame(frameHeartbeat, 0), method(1, basicNack, uint64(1), byte(0)))
}

func TestSplitsOfAMQPDoNotMatter(t *testing.T) {
	client, server := amqpConversation()
	run := func(size func() int) (events []Event) {
		d := NewAMQP(5, func(e Event) { events = append(events, e) })
		for _, side := range []struct {
			p    []byte
			feed func(int64, []byte)
		}{{client, d.Client}, {server, d.Server}} {
			for p := side.p; len(p) > 0; {
				n := min(size(), len(p))
				side.feed(0, bytes.Clone(p[:n]))
				p = p[n:]
			}
		}
		return events
	}
	want := run(func() int { return 1 << 20 })
	rapid.Check(t, func(t *rapid.T) {
		if got := run(func() int { return rapid.IntRange(1, 50).Draw(t, "n") }); !slices.Equal(got, want) {
			t.Fatalf("got %+v\nwant %+v", got, want)
		}
	})
}

func FuzzAMQP(f *testing.F) {
	client, server := amqpConversation()
	f.Add(client, server, 7)
	f.Fuzz(func(t *testing.T, client, server []byte, cut int) { fuzz(t, NewAMQP, client, server, cut) })
}
