package batchers_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/batchers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/internal/micro"
)

// keyed is metadata with a key.
type keyed struct{ key []byte }

func (k keyed) MessageOrigin() string             { return "orders" }
func (k keyed) MessageKey() []byte                { return k.key }
func (k keyed) MessageHeaders() []broadway.Header { return nil }

// policyOps ask a policy about 100 messages, as a batcher does: what opening a batch allocates is all there is.
func policyOps() []micro.Op {
	ref := broadway.NewAckRef(acknowledgers.Noop{}, nil, 0)
	messages := make([]*broadway.Message, 100)
	for i := range messages {
		messages[i] = broadway.NewMessage(ref, int64(i), make([]byte, 200))
		messages[i].Metadata = keyed{fmt.Appendf(nil, "key-%d", i)}
	}
	op := func(name string, allocs int, p broadway.BatchPolicy) micro.Op {
		return micro.Op{Name: name, Allocs: allocs, Run: func() {
			state := p.Open(start)
			for i, m := range messages {
				if i > 0 && !state.Fits(m) || state.Add(m) {
					panic("the batch is closed early")
				}
				state.Deadline()
			}
		}}
	}
	count, bytes, age := batchers.Count(1000), batchers.Bytes(1<<20), batchers.Age(time.Second)
	hashed := batchers.Hashed(16, func(*broadway.Message) string { return "a key as long as most" })
	kept := make([]string, 1) // where a batcher would keep the key
	return []micro.Op{
		op("count-100", 1, count),
		op("bytes-100", 1, bytes),
		op("age-100", 1, age),
		op("run-100", 1, batchers.Run(func(m *broadway.Message) int { return len(m.Payload) })),
		op("any-of-3-100", 5, batchers.Any(count, bytes, age)), // the list, itself in an interface, and three states
		{Name: "hashed", Run: func() { hashed(messages[17]) }},
		{Name: "message-key", Allocs: 1, Run: func() { kept[0] = batchers.MessageKey(messages[17]) }}, // bytes become a string
		{Name: "message-origin", Run: func() { kept[0] = batchers.MessageOrigin(messages[17]) }},
	}
}

func BenchmarkPolicies(b *testing.B) { micro.Benchmark(b, policyOps()) }

func TestAllocations(t *testing.T) { micro.Allocations(t, policyOps()) }
