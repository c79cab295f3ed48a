// Command yaml runs the pipeline that a file describes:
//
//	go run ./examples/yaml
//	go run ./examples/yaml -file my.yaml
//
// The file names its handlers; this program registers them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/pipelines"
)

func main() {
	file := flag.String("file", "examples/yaml/pipeline.yaml", "the pipeline")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *file, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitCode(err))
	}
}

// exitCode is 2 when the file is at fault, so that whoever started the program
// knows that starting it again is of no use, and 1 otherwise.
func exitCode(err error) int {
	var wrong *pipelines.Error
	if errors.As(err, &wrong) || errors.Is(err, fs.ErrNotExist) {
		return 2
	}
	return 1
}

// run runs the pipelines of a file, one after the other, until their sources are
// done or ctx ends.
func run(ctx context.Context, file string, out io.Writer) error {
	registry := pipelines.NewRegistry()
	registry.Processor("greet", greet)
	registry.Reporter("print", func(_ context.Context, b *broadway.Batch) error {
		for _, m := range b.Messages {
			if _, err := fmt.Fprintln(out, m.Value); err != nil {
				return err
			}
		}
		return nil
	})
	list, err := pipelines.Load(file, registry)
	if err != nil {
		return err
	}
	for _, p := range list {
		if err := p.Run(ctx); err != nil {
			return err
		}
		s := p.Stats()
		if _, err := fmt.Fprintf(out, "%s: %d succeeded, %d failed\n", s.Name, s.Succeeded, s.Failed); err != nil {
			return err
		}
	}
	return nil
}

// greet is a processor: what it makes of a message goes to the reporter.
func greet(_ context.Context, m *broadway.Message) error {
	if len(m.Payload) == 0 {
		return broadway.Reject(errors.New("nobody to greet"))
	}
	m.Value = "Hello, " + string(m.Payload) + "!"
	return nil
}
