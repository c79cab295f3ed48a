package rabbitmq

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// TestHeadersWeighWhatTheyTake: a publisher cannot hide headers from the bounds in
// bytes, nor from the limits on messages: neither by nesting them, nor by many that
// take next to nothing on the wire.
func TestHeadersWeighWhatTheyTake(t *testing.T) {
	const copies, n = 50, 5_000
	text := strings.Repeat("x", 100<<10)
	nothing := make(amqp.Table, n)
	for i := range n {
		nothing[fmt.Sprint(i)] = nil
	}
	for name, headers := range map[string]func() amqp.Table{
		"text":            func() amqp.Table { return amqp.Table{"a": strings.Clone(text)} },
		"nested text":     func() amqp.Table { return amqp.Table{"a": amqp.Table{"b": []any{strings.Clone(text)}}} },
		"voids":           func() amqp.Table { return clone(nothing) },
		"nested voids":    func() amqp.Table { return amqp.Table{"a": amqp.Table{"b": clone(nothing)}} },
		"array of voids":  func() amqp.Table { return amqp.Table{"a": make([]any, n)} },
		"array of tables": func() amqp.Table { return amqp.Table{"a": tables(n)} },
	} {
		kept := [copies]Metadata{}
		before := heap()
		weight := int64(0)
		for i := range kept {
			kept[i].fill(&amqp.Delivery{Headers: headers()}, "q")
			weight += kept[i].weight()
		}
		grown := heap() - before
		if weight < grown-grown/8 {
			t.Errorf("%s: they weigh %d, and take %d", name, weight/copies, grown/copies)
		}
		runtime.KeepAlive(&kept)
	}
}

func clone(t amqp.Table) amqp.Table {
	c := amqp.Table{}
	for key, value := range t {
		c[strings.Clone(key)] = value
	}
	return c
}

func tables(n int) (list []any) {
	for range n {
		list = append(list, amqp.Table{})
	}
	return list
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
