package rig

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestKafkaRequestsAreCutIntoFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		var want [][]byte
		for range rapid.IntRange(0, 8).Draw(t, "frames") {
			payload := rapid.SliceOfN(rapid.Byte(), 4, 300).Draw(t, "payload")
			frame := append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
			stream, want = append(stream, frame...), append(want, frame)
		}
		var got [][]byte
		f := new(frames)
		for len(stream) > 0 {
			n := rapid.IntRange(1, len(stream)).Draw(t, "piece")
			f.rest = append(f.rest, stream[:n]...)
			stream = stream[n:]
			for frame := f.cut(); frame != nil; frame = f.cut() {
				got = append(got, frame)
			}
		}
		if !slices.EqualFunc(got, want, bytes.Equal) || len(f.rest) != 0 {
			t.Fatalf("%d frames instead of %d, %d bytes left", len(got), len(want), len(f.rest))
		}
	})
}

// Of each so many bytes one bit is inverted, however the stream is cut into pieces, and nothing else changes.
func TestBytesAreFlippedInTheirMeasure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := &flip{Every: rapid.IntRange(2, 200).Draw(t, "every"), Seed: rapid.Uint64().Draw(t, "seed")}
		state := f.NewState().(*flipState)
		flipped, total := 0, rapid.IntRange(0, 5000).Draw(t, "bytes")
		for left := total; left > 0; {
			piece := make([]byte, rapid.IntRange(1, left).Draw(t, "piece"))
			left -= len(piece)
			f.spoil(state, piece)
			for _, b := range piece {
				if b != 0 {
					flipped++
				}
				if bits.OnesCount8(b) > 1 {
					t.Fatalf("several bits of a byte: %08b", b)
				}
			}
		}
		// From one to the next it is half of it to one and a half, and the first comes within one.
		least, most := (total-f.Every)/(f.Every+f.Every/2), 1+total/max(1, f.Every/2)
		if flipped < least || flipped > most {
			t.Fatalf("%d of %d bytes, one in %d: not within %d to %d", flipped, total, f.Every, least, most)
		}
	})
}

func TestClientsAreRecognised(t *testing.T) {
	kafka := func(name string) []byte {
		request := make([]byte, 12)
		request = binary.BigEndian.AppendUint16(request, uint16(len(name)))
		return append(request, name...)
	}
	amqp := func(name string) []byte {
		return append(binary.BigEndian.AppendUint32([]byte("AMQP\x00\x00connection_nameS"), uint32(len(name))), name...)
	}
	for _, name := range []string{"w0-0", "a longer name"} {
		if got := kafkaClient(kafka(name)); got != name {
			t.Errorf("Kafka: %q instead of %q", got, name)
		}
		if got := amqpClient(amqp(name)); got != name {
			t.Errorf("AMQP: %q instead of %q", got, name)
		}
	}
	whole := kafka("w0-0")
	for n := range whole {
		if got := kafkaClient(whole[:n]); got != "" {
			t.Errorf("Kafka: %q from %d bytes", got, n)
		}
	}
	whole = amqp("w0-0")
	for n := range whole {
		if got := amqpClient(whole[:n]); got != "" {
			t.Errorf("AMQP: %q from %d bytes", got, n)
		}
	}
}

// What Wrapped runs sees a disk that is full after so many bytes, and nobody else sees that disk.
func TestASmallDiskIsFullAndPrivate(t *testing.T) {
	dir := t.TempDir()
	const size = 256 << 10
	prefix, disk, err := Wrapped(dir, size)
	if err != nil {
		t.Logf("not permitted here: %v", err)
		return
	}
	command := append(prefix[:len(prefix):len(prefix)], "sh", "-c", `dd if=/dev/zero of="$1/f" bs=4096 2>&1; stat -c %s "$1/f"`, "sh", disk)
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("No space left")) || !bytes.HasSuffix(bytes.TrimSpace(out), []byte("262144")) {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(disk, "f")); !os.IsNotExist(err) {
		t.Errorf("the file is seen outside: %v", err)
	}
}
