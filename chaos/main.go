// Command chaos breaks processes, brokers and links while messages flow, and counts what is lost, repeated or out of order.
//
//	go run . [-only A1,B1] [-scale 0.05] [-seed 7] [-fresh]
//
// Each scenario that has passed or failed is kept in a state folder, and not tried again until -fresh: a run that was cut short goes on
// where it was. The seed is printed, and replays the times and targets of faults. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/scenario"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		os.Exit(worker.Main(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// options are the command line's.
type options struct {
	only  string
	seed  uint64
	scale float64
	state string
	fresh bool
	list  bool
	limit time.Duration
	docs  string
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.StringVar(&o.only, "only", "", "the scenarios to run, with commas between; default all")
	flags.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano())%1_000_000, "what faults are drawn from")
	flags.Float64Var(&o.scale, "scale", 1, "the size, 1 being full")
	flags.StringVar(&o.state, "state", "run", "where results, ledgers and logs are kept")
	flags.BoolVar(&o.fresh, "fresh", false, "run again what has run")
	flags.BoolVar(&o.list, "list", false, "list the scenarios and their pass lines")
	flags.StringVar(&o.docs, "docs", "", "write the results of the state folder to reliability.json and .md here, and run nothing")
	flags.DurationVar(&o.limit, "limit", 90*time.Minute, "the most that one scenario may take")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.scale <= 0 || o.scale > 1 {
		return o, fmt.Errorf("-scale %v: more than 0, at most 1", o.scale)
	}
	testing.Init() // package brokers asks for -short
	return o, flag.CommandLine.Parse(nil)
}

// chosen are the scenarios that -only names.
func chosen(only string) ([]scenario.Scenario, error) {
	if only == "" {
		return scenario.All(), nil
	}
	var found []scenario.Scenario
	for id := range strings.SplitSeq(only, ",") {
		one, ok := scenario.Find(id)
		if !ok {
			return nil, fmt.Errorf("no scenario %q: see -list", id)
		}
		found = append(found, one)
	}
	return found, nil
}

// run says whether every chosen scenario has passed.
func run(ctx context.Context, args []string) (ok bool, err error) {
	o, err := parse(args)
	if err != nil {
		return false, err
	}
	list, err := chosen(o.only)
	if err != nil {
		return false, err
	}
	if o.list {
		for _, s := range list {
			fmt.Printf("%-5s %s  %s\n           %s\n", s.ID, s.Severity, s.Title, s.Limit)
		}
		return true, nil
	}
	if o.docs != "" {
		return true, writeDocs(o.state, o.docs)
	}
	fmt.Printf("chaos: seed %d, scale %v\n", o.seed, o.scale)
	rigs := scenario.NewRigs(logf("rig"))
	defer func() { err = errors.Join(err, rigs.Close()) }()
	ok = true
	var records []record
	for _, s := range list {
		r, err := o.one(ctx, s, rigs)
		if err != nil {
			return false, err
		}
		ok = ok && r.Pass
		records = append(records, r)
	}
	return ok, printTable(os.Stdout, records)
}

// logf tells how a scenario goes, on the standard error.
func logf(who string) func(string, ...any) {
	return func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%s %s: %s\n", time.Now().Format("15:04:05"), who, fmt.Sprintf(format, args...))
	}
}
