// Command backpressure runs the same three costs twice: pushed, where the
// ingestor calls its API as fast as it can and puts what it gets into a queue; and
// pulled, where a pipeline asks for what it can handle. It prints a table and
// draws queue lengths and API calls over time.
//
//	go run ./examples/backpressure
//
// The handlers are the same functions in both runs. A (fetching) costs 1 unit a
// post, B (republishing) 10, C (reporting) 2; B has 4 workers.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"
)

// options are the command's flags.
type options struct {
	posts int
	unit  time.Duration
	svg   string
	json  bool
}

// result is what one run did. Seconds are of the whole run.
type result struct {
	Produced int     `json:"produced"` // posts that the API returned
	Calls    int64   `json:"calls"`    // API calls
	Highest  int     `json:"highest"`  // most posts between A and C at once
	Bound    int     `json:"bound"`    // the most that may be there
	Dropped  int     `json:"dropped"`  // posts that were fetched and never reported
	Seconds  float64 `json:"seconds"`

	samples []sample
}

// sample is the state of a run at one time.
type sample struct {
	at     time.Duration
	queued int
	calls  int64
}

func main() {
	var o options
	flag.IntVar(&o.posts, "posts", 2000, "posts to offer")
	flag.DurationVar(&o.unit, "unit", 200*time.Microsecond, "one unit of cost")
	flag.StringVar(&o.svg, "svg", filepath.Join(os.TempDir(), "backpressure.svg"), "file to draw into")
	flag.BoolVar(&o.json, "json", false, "print the result as one line of JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "backpressure:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) error {
	if o.posts < 1 || o.unit <= 0 {
		return fmt.Errorf("-posts and -unit must be positive")
	}
	push, err := pushed(ctx, o)
	if err != nil {
		return err
	}
	pull, err := pulled(ctx, o)
	if err != nil {
		return err
	}
	if err := os.WriteFile(o.svg, draw(push, pull), 0o600); err != nil {
		return err
	}
	if o.json {
		return json.NewEncoder(out).Encode(map[string]any{"push": push, "pull": pull, "svg": o.svg})
	}
	_, err = fmt.Fprintf(out, "%-8s%10s%8s%10s%8s%10s%10s\n%s%s\nqueue lengths and API calls over time: %s\n",
		"", "produced", "calls", "highest", "bound", "dropped", "seconds", row("pushed", push), row("pulled", pull), o.svg)
	return err
}

func row(name string, r result) string {
	return fmt.Sprintf("%-8s%10d%8d%10d%8d%10d%10.2f\n", name, r.Produced, r.Calls, r.Highest, r.Bound, r.Dropped, r.Seconds)
}
