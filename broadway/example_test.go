package broadway_test

import (
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// A pipeline of three stages over a source in memory. Exchange the source for
// kafka.NewProducer or rabbitmq.NewProducer, and nothing else changes but that a
// failure policy must be chosen.
func Example() {
	source := memory.New(memory.Config{Payloads: [][]byte{[]byte("one"), []byte("two"), []byte("three")}})
	pipeline, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{source},
		Processor: broadway.ProcessorConfig{
			Concurrency: 1,
			Handler: func(_ context.Context, m *broadway.Message) error {
				m.Value = strings.ToUpper(string(m.Payload))
				return nil
			},
		},
		Batchers: []broadway.BatcherConfig{{
			Size: 3,
			Reporter: func(_ context.Context, b *broadway.Batch) error {
				for _, m := range b.Messages {
					fmt.Println(m.Value)
				}
				return nil
			},
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := pipeline.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println("acknowledged:", source.Counts().Succeeded)
	// Output:
	// ONE
	// TWO
	// THREE
	// acknowledged: 3
}

// A reporter that inserts rows fails only those that the database refused.
func ExampleBatchError() {
	insert := func(_ context.Context, b *broadway.Batch) error {
		failures := new(broadway.BatchError)
		for _, m := range b.Messages {
			if len(m.Payload) == 0 {
				failures.Fail(m, broadway.Reject(fmt.Errorf("nothing to insert")))
			}
		}
		return failures.Err()
	}
	ref := broadway.NewAckRef(nil, nil, 0)
	err := insert(context.Background(), &broadway.Batch{Messages: []*broadway.Message{
		broadway.NewMessage(ref, 1, []byte("row")), broadway.NewMessage(ref, 2, nil),
	}})
	fmt.Println(err)
	// Output: broadway: 1 members of the batch failed, the first with: nothing to insert
}
