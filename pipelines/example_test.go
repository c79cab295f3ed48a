package pipelines_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/pipelines"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// The program registers what is Go, the file says the rest.
func Example() {
	registry := pipelines.NewRegistry()
	registry.Processor("shout", func(_ context.Context, m *broadway.Message) error {
		m.Value = strings.ToUpper(string(m.Payload))
		return nil
	})
	registry.Reporter("print", func(_ context.Context, b *broadway.Batch) error {
		for _, m := range b.Messages {
			fmt.Println(m.Value)
		}
		return nil
	})

	list, err := pipelines.Parse("greetings.yaml", []byte(`
producers:
  - memory: {payloads: [hello, goodbye]}
processor:
  handler: shout
  concurrency: 1
batchers:
  default:
    reporter: print
    size: 2
`), registry)
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range list {
		if err := p.Run(context.Background()); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// HELLO
	// GOODBYE
}

// Everything that is wrong with a file is said at once.
func ExampleParse_mistakes() {
	registry := pipelines.NewRegistry()
	registry.Processor("render", func(context.Context, *broadway.Message) error { return nil })

	_, err := pipelines.Parse("orders.yaml", []byte(`
producers:
  - memory: {payloads: [a]}
processor:
  handler: rendr
  concurency: 10
  timeout: 30
max_unsettled: 0
`), registry)
	fmt.Println(err)

	var all *pipelines.Error
	if errors.As(err, &all) {
		fmt.Println(len(all.Problems), "problems, the first in line", all.Problems[0].Line)
	}
	// Output:
	// orders.yaml:5:3: processor.handler: there is no processor "rendr"; registered are render
	// orders.yaml:6:3: processor.concurency: is not a key here; the keys are concurrency, handler, max_demand, max_stuck, min_demand, partition_by, retry_stuck, timeout, unordered
	// orders.yaml:7:12: processor.timeout: a duration needs a unit: write 30s, or 30ms
	// orders.yaml:8:16: max_unsettled: must be greater than 0; leave the key out for the default
	// 4 problems, the first in line 5
}

// A program may register kinds of sources of its own. Their sections are as
// strict as everything else.
func ExampleRegistry_Source() {
	registry := pipelines.NewRegistry()
	registry.Processor("print", func(_ context.Context, m *broadway.Message) error {
		fmt.Println(string(m.Payload))
		return nil
	})
	registry.Source("ticks", func(s *pipelines.Section) (broadway.Producer, error) {
		var spec struct {
			Count int           `yaml:"count" max:"1000"`
			Every time.Duration `yaml:"every"`
		}
		if err := s.Decode(&spec); err != nil {
			return nil, err
		}
		if spec.Count == 0 {
			return nil, s.Fail("count", "is required")
		}
		var payloads [][]byte
		for i := range spec.Count {
			payloads = append(payloads, fmt.Appendf(nil, "tick %d", i+1))
		}
		return memory.New(memory.Config{Payloads: payloads}), nil
	})

	list, err := pipelines.Parse("clock.yaml", []byte(`
producers:
  - ticks: {count: 3, every: 1s}
processor: {handler: print, concurrency: 1}
`), registry)
	if err != nil {
		log.Fatal(err)
	}
	if err := list[0].Run(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// tick 1
	// tick 2
	// tick 3
}
