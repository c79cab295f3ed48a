package stage_test

import (
	"context"
	"fmt"
	"io"
	"log"

	"github.com/gobroadway/gobroadway/broadway/stage"
)

// A source of ten numbers, a stage that squares them, and one that prints them, four
// at a time at most. The source is called only when there is demand.
func Example() {
	next := 0
	numbers, err := stage.NewProducer("numbers", func(_ context.Context, demand int) ([]int, error) {
		var events []int
		for ; next < 10 && len(events) < demand; next++ {
			events = append(events, next)
		}
		if next == 10 {
			return events, io.EOF
		}
		return events, nil
	}, stage.Options[int]{})
	if err != nil {
		log.Fatal(err)
	}
	squares, err := stage.NewProducerConsumer("squares", func(_ context.Context, events []int) ([]int, error) {
		for i, n := range events {
			events[i] = n * n
		}
		return events, nil
	}, stage.Options[int]{})
	if err != nil {
		log.Fatal(err)
	}
	printer, err := stage.NewConsumer("printer", func(_ context.Context, events []int) error {
		fmt.Println(events)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}

	if _, err := stage.Subscribe(squares, numbers, stage.Subscription{MaxDemand: 4}); err != nil {
		log.Fatal(err)
	}
	if _, err := stage.Subscribe(printer, squares, stage.Subscription{MaxDemand: 4}); err != nil {
		log.Fatal(err)
	}
	if err := stage.Run(context.Background(), numbers, squares, printer); err != nil {
		log.Fatal(err)
	}
	// Output:
	// [0 1 4 9]
	// [16 25 36 49]
	// [64 81]
}

// Events that come by themselves are emitted. With nobody who asks for more, and the
// buffer full, Emit blocks.
func ExampleProducer_Emit() {
	ctx := context.Background()
	source, err := stage.NewProducer[string]("source", nil, stage.Options[string]{Buffer: 2})
	if err != nil {
		log.Fatal(err)
	}
	sink, err := stage.NewConsumer("sink", func(_ context.Context, words []string) error {
		for _, w := range words {
			fmt.Println(w)
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := stage.Subscribe(sink, source, stage.Demand(2)); err != nil {
		log.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- stage.Run(ctx, source, sink) }()
	if _, err := source.Emit(ctx, []string{"one", "two", "three", "four", "five"}); err != nil {
		log.Fatal(err)
	}
	source.Close()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output:
	// one
	// two
	// three
	// four
	// five
}

// Each event goes to the consumer of its partition: here, words by their length.
func ExamplePartition() {
	ctx := context.Background()
	words, err := stage.NewProducer[string]("words", nil, stage.Options[string]{
		Dispatcher: stage.Partition(2, func(w string) uint64 { return uint64(len(w)) }),
	})
	if err != nil {
		log.Fatal(err)
	}
	stages := []stage.Stage{words}
	counts := make([]int, 2)
	for i := range counts {
		c, err := stage.NewConsumer(fmt.Sprint("partition ", i), func(_ context.Context, words []string) error {
			counts[i] += len(words)
			return nil
		})
		if err != nil {
			log.Fatal(err)
		}
		if _, err := stage.SubscribePartition(c, words, stage.Demand(10), i); err != nil {
			log.Fatal(err)
		}
		stages = append(stages, c)
	}
	if _, err := words.Emit(ctx, []string{"a", "be", "see", "four", "seven"}); err != nil {
		log.Fatal(err)
	}
	words.Close()
	if err := stage.Run(ctx, stages...); err != nil {
		log.Fatal(err)
	}
	fmt.Println("even:", counts[0], "odd:", counts[1])
	// Output:
	// even: 2 odd: 3
}
