package rabbitmq

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// frame is one, as a peer writes it.
func frame(kind byte, channel uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16([]byte{kind}, channel), uint32(len(payload)))
	return append(append(b, payload...), 0xCE)
}

// content is the frames of a message's header and body.
func content(channel uint16, number uint64) []byte {
	body := append(binary.LittleEndian.AppendUint64(nil, number), 1, 2, 3)
	return append(frame(2, channel, make([]byte, 14)), frame(3, channel, body)...)
}

// delivery is the frames of one, got those of an answer to a get, and acknowledgement the frame of one.
func delivery(channel uint16, tag, number uint64) []byte {
	arguments := append([]byte{0, 60, 0, 60, 3}, "tag"...)
	arguments = binary.BigEndian.AppendUint64(arguments, tag)
	return append(frame(1, channel, append(arguments, 0, 0, 1, 'q')), content(channel, number)...)
}

func got(channel uint16, tag, number uint64) []byte {
	arguments := binary.BigEndian.AppendUint64([]byte{0, 60, 0, 71}, tag)
	return append(frame(1, channel, append(arguments, 0, 0, 1, 'q', 0, 0, 0, 0)), content(channel, number)...)
}

func acknowledgement(channel uint16, tag uint64, multiple byte) []byte {
	return frame(1, channel, append(binary.BigEndian.AppendUint64([]byte{0, 60, 0, 80}, tag), multiple))
}

func TestFramerCutsWhereverReadsEnd(t *testing.T) {
	stream := slices.Concat([]byte("AMQP\x00\x00\x09\x01"), frame(1, 0, nil), frame(3, 7, []byte("body")), frame(8, 0, bytes.Repeat([]byte{0xCE}, 300)))
	for size := 1; size <= len(stream); size++ {
		f := framer{skip: greeting}
		var got []int
		for part := range slices.Chunk(stream, size) {
			f.feed(part, func(kind byte, channel uint16, payload []byte) {
				got = append(got, int(kind), int(channel), len(payload))
			})
		}
		if want := []int{1, 0, 0, 3, 7, 4, 8, 0, 300}; !slices.Equal(got, want) {
			t.Fatalf("reads of %d bytes: %v, want %v", size, got, want)
		}
	}
}

func FuzzFramer(f *testing.F) {
	f.Add(slices.Concat(delivery(1, 1, 9), acknowledgement(1, 1, 1)), uint8(5))
	f.Add([]byte{1, 0, 0, 255, 255, 255, 255, 0}, uint8(1))
	f.Fuzz(func(t *testing.T, stream []byte, size uint8) {
		w := wire{channels: map[uint16]*tags{}, settle: func(uint64, time.Time) {}}
		var requests, answers framer
		for part := range slices.Chunk(stream, int(size)+1) {
			answers.feed(part, w.fromBroker)
			requests.feed(part, w.fromClient(time.Now()))
		}
	})
}

func TestTagsSettleWhatAnAckCovers(t *testing.T) {
	var x tags
	for tag := uint64(5); tag <= 9; tag++ {
		x.next = tag
		x.deliver(binary.LittleEndian.AppendUint64(nil, tag*10))
	}
	for _, c := range []struct {
		tag      uint64
		multiple bool
		want     []uint64
	}{
		{7, false, []uint64{70}},
		{7, false, nil},
		{8, true, []uint64{50, 60, 80}},
		{6, true, nil},
		{12, true, nil},
		{9, true, []uint64{90}},
	} {
		var got []uint64
		x.ack(c.tag, c.multiple, func(n uint64) { got = append(got, n) })
		if !slices.Equal(got, c.want) {
			t.Errorf("ack %d, multiple %v: %v, want %v", c.tag, c.multiple, got, c.want)
		}
	}
	if len(x.numbers) != 0 {
		t.Errorf("%d are kept", len(x.numbers))
	}
}

// A relay hands on both streams as they are, and tells each acknowledgement once.
func TestRelayTellsAcknowledgements(t *testing.T) {
	broker, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	answer := slices.Concat(got(1, 1, 11), delivery(2, 1, 21), delivery(1, 2, 12), delivery(1, 3, 13))
	request := slices.Concat([]byte("AMQP\x00\x00\x09\x01"), acknowledgement(2, 1, 0), acknowledgement(1, 2, 1))
	heard := make(chan []byte, 1)
	var serving sync.WaitGroup
	defer serving.Wait()
	serving.Go(func() {
		conn, err := broker.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Write(answer)
		said, _ := io.ReadAll(conn)
		heard <- said
	})
	var mu sync.Mutex
	var settled []uint64
	settle := func(n uint64, _ time.Time) {
		mu.Lock()
		defer mu.Unlock()
		settled = append(settled, n)
	}
	done := errors.New("done")
	err = through(t.Context(), "amqp://user:secret@"+broker.Addr().String()+"/v", settle, func(_ context.Context, url string) error {
		conn, err := net.Dial("tcp", url[len("amqp://user:secret@"):len(url)-len("/v")])
		if err != nil {
			return err
		}
		got := make([]byte, len(answer))
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, answer) {
			return errors.Join(errors.New("not what the broker said"), err)
		}
		_, err = conn.Write(request)
		if err := errors.Join(err, conn.Close()); err != nil {
			return err
		}
		if said := <-heard; !bytes.Equal(said, request) {
			t.Errorf("the broker heard %q", said)
		}
		return done
	})
	if !errors.Is(err, done) {
		t.Fatal(err)
	}
	if want := []uint64{21, 11, 12}; !slices.Equal(settled, want) {
		t.Errorf("settled %v, want %v", settled, want)
	}
}
