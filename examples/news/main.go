// Command news is a news-sharing system on this machine: it downloads social
// posts, republishes them on several platforms, and reports what it did. It
// needs nothing but Go:
//
//	go run ./examples/news
//
// It has three parts, and they cost 1, 10 and 2:
//
//	A  ingests   the posts API is called when there is demand    internal/ingest
//	B  republishes   renders five formats, publishes on three    internal/render,
//	             platforms, which fail and time out              internal/publish
//	C  reports   a row per post and platform, and metrics        internal/report
//
// Pushed, A would overflow B. Here C asks B, B asks A, and only then is the API
// called; with a queue in between too. What is outside (the API, the platforms)
// is a stand-in on loopback, made for this project: internal/standin. In the
// end an audit compares what the stand-ins saw with the files and the database.
//
//	main.go       this: from flags to exit code
//	options.go    the flags
//	system.go     opens everything and closes it
//	stages.go     A, B and C as stages of a pipeline
//	direct.go     one pipeline: A, B, C
//	queued.go     two pipelines, with a queue between A and B
//	queue*.go     the queues: embedded Kafka, Kafka, RabbitMQ
//	progress.go   what is seen while it runs
//	summary.go    what is said in the end
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "news:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first interrupt drains; a second one finds Go's default, and ends us.
	context.AfterFunc(ctx, stop)
	err = run(ctx, o, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "news:", err)
		os.Exit(1)
	}
}

// run does everything, and prints the summary on out. What is seen meanwhile goes
// to screen.
func run(ctx context.Context, o options, out, screen io.Writer) error {
	s, err := open(context.WithoutCancel(ctx), o, screen)
	if err != nil {
		return err
	}
	sum, err := s.work(ctx)
	if err := errors.Join(err, s.close()); err != nil {
		return err
	}
	if err := sum.print(out, o.json); err != nil {
		return err
	}
	if sum.Lost > 0 || sum.Duplicates > 0 {
		return fmt.Errorf("%s lost, %s repeated", plural(sum.Lost, "post"), plural(sum.Duplicates, "publishing"))
	}
	return nil
}
