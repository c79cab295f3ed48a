package batchers_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/gobroadway/gobroadway/batchers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// show sends words through a pipeline with one batcher, and prints its batches.
func show(words string, b broadway.BatcherConfig) {
	var payloads [][]byte
	for _, word := range strings.Fields(words) {
		payloads = append(payloads, []byte(word))
	}
	b.Reporter = func(_ context.Context, batch *broadway.Batch) error {
		for _, m := range batch.Messages {
			fmt.Printf("%s ", m.Payload)
		}
		fmt.Printf("(%s)\n", batch.Trigger)
		return nil
	}
	p, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{memory.New(memory.Config{Payloads: payloads})},
		Processor: broadway.ProcessorConfig{
			Handler:     func(context.Context, *broadway.Message) error { return nil },
			Concurrency: 1, // so that the order is that of the words
		},
		Batchers: []broadway.BatcherConfig{b},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := p.Run(context.Background()); err != nil {
		fmt.Println(err)
	}
}

func ExampleBytes() {
	show("to be or not to be", broadway.BatcherConfig{Policy: batchers.Bytes(6)})
	// Output:
	// to be or (policy)
	// not to (policy)
	// be (drain)
}

func ExampleRun() {
	show("apple avocado banana cherry cranberry", broadway.BatcherConfig{
		Policy: batchers.Run(func(m *broadway.Message) byte { return m.Payload[0] }),
	})
	// Output:
	// apple avocado (policy)
	// banana (policy)
	// cherry cranberry (drain)
}

func ExampleFunc() {
	endOfSentence := func(_ struct{}, m *broadway.Message) (struct{}, bool) {
		return struct{}{}, strings.HasSuffix(string(m.Payload), ".")
	}
	show("It rains. We stay at home.", broadway.BatcherConfig{Policy: batchers.Func(struct{}{}, endOfSentence)})
	// Output:
	// It rains. (policy)
	// We stay at home. (policy)
}

func ExampleAny() {
	show("a b c longer d e", broadway.BatcherConfig{
		Policy: batchers.Any(batchers.Count(4), batchers.Weight(8, (*broadway.Message).Size)),
	})
	// Output:
	// a b c (policy)
	// longer d e (policy)
}

func ExampleHashed() {
	key := batchers.Hashed(4, func(m *broadway.Message) string { return string(m.Payload) })
	for _, user := range []string{"ada", "barbara", "ada"} {
		fmt.Println(user, key(message(user)))
	}
	// Output:
	// ada 3
	// barbara 2
	// ada 3
}
