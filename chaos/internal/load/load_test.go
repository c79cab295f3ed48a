package load

import (
	"bytes"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

func TestBodiesNameThemselves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		run := rapid.StringMatching(`[A-Za-z0-9-]{1,40}`).Draw(t, "run")
		producer, seq := rapid.IntRange(0, 99).Draw(t, "producer"), rapid.IntRange(0, 1<<30).Draw(t, "seq")
		size := rapid.IntRange(0, 2000).Draw(t, "size")
		id := ID(run, producer, seq)
		body := Body(id, "k1", int64(seq), size)
		if len(body) < size {
			t.Fatalf("%d bytes instead of %d", len(body), size)
		}
		gotID, key, keySeq, err := Parse(body)
		if err != nil || gotID != id || key != "k1" || keySeq != int64(seq) {
			t.Fatalf("%q %q %d %v", gotID, key, keySeq, err)
		}
		if size > 200 && bytes.Equal(body[100:], Body(id+"x", "k1", int64(seq), size)[100:len(body)]) {
			t.Fatal("the padding of two messages is the same")
		}
	})
	for _, body := range []string{"", "id key 1", "id key\n", "id key x\n", "a b 1 2\n"} {
		if _, _, _, err := Parse([]byte(body)); err == nil {
			t.Errorf("%q is read", body)
		}
	}
}

// Order is judged by positions within keys, so a key must belong to one producer, with positions without gaps.
func TestKeysHaveOneProducerAndNoGaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := Spec{
			Run: "r", Messages: rapid.IntRange(1, 500).Draw(t, "messages"), Producers: rapid.IntRange(0, 7).Draw(t, "producers"),
			Keys: rapid.IntRange(0, 50).Draw(t, "keys"),
		}
		spec.defaults()
		ids, owner, next := map[string]bool{}, map[string]int{}, map[string]int64{}
		for p := range spec.Producers {
			for i := range spec.share(p) {
				entry, _ := spec.message(p, i)
				if was, known := owner[entry.Key]; known && was != p {
					t.Fatalf("key %s is of producers %d and %d", entry.Key, was, p)
				}
				if entry.KeySeq != next[entry.Key] {
					t.Fatalf("key %s: %d instead of %d", entry.Key, entry.KeySeq, next[entry.Key])
				}
				ids[entry.ID], owner[entry.Key] = true, p
				next[entry.Key]++
			}
		}
		if len(ids) != spec.Messages {
			t.Fatalf("%d ids for %d messages", len(ids), spec.Messages)
		}
	})
}

func TestSumsTellRecordsApart(t *testing.T) {
	header := func(key string, value []byte) []kgo.RecordHeader { return []kgo.RecordHeader{{Key: key, Value: value}} }
	sums := map[string]int{}
	for i, sum := range []string{
		SumRecord(nil, nil, nil), SumRecord([]byte{}, nil, nil), SumRecord(nil, []byte{}, nil), SumRecord([]byte("ab"), []byte("c"), nil),
		SumRecord([]byte("a"), []byte("bc"), nil), SumRecord(nil, nil, header("a", nil)), SumRecord(nil, nil, header("a", []byte{})),
		SumRecord(nil, nil, header("", []byte("a"))), SumRecord(nil, nil, append(header("a", nil), header("b", nil)...)),
		SumRecord(nil, nil, append(header("b", nil), header("a", nil)...)),
	} {
		if was, known := sums[sum]; known {
			t.Errorf("cases %d and %d have one sum", was, i)
		}
		sums[sum] = i
	}
	values := []any{nil, "1", int8(1), int16(1), int32(1), int64(1), byte(1), float32(1), float64(1), true, []byte("1"), []any{int32(1)}, []any{}}
	sums = map[string]int{}
	for i, value := range values {
		sum := SumAMQP(nil, map[string]any{"h": value}, AMQPKind)
		if was, known := sums[sum]; known {
			t.Errorf("values %d and %d have one sum", was, i)
		}
		sums[sum] = i
	}
}
