// Command bench measures this project and its peers on the same work, in turns.
//
//	go run . [-only inprocess,kafka] [-systems REGEXP] [-scale 0.1] [-rounds 3] [-fresh]
//
// Each round of each system is a process of its own; its rounds are kept in a state folder, and a run that was cut short goes on where
// it was. Ratios of medians within one run mean something; absolute figures are the machine's. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gobroadway/gobroadway/bench/internal/inproc"
	"github.com/gobroadway/gobroadway/bench/internal/kafka"
	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/bench/internal/rabbitmq"
	"github.com/gobroadway/gobroadway/bench/internal/report"
	"github.com/gobroadway/gobroadway/bench/internal/rig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 3 && args[0] == "child" {
		return child(ctx, args[1], args[2])
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.list {
		list()
		return nil
	}
	chosen, err := choose(o.only)
	if err != nil {
		return err
	}
	pick(chosen, o.systems)
	state, err := measure.OpenState(o.state, func(workload string) bool {
		return o.fresh && slices.ContainsFunc(chosen, func(w measure.Workload) bool { return w.Name == workload })
	})
	if err != nil {
		return err
	}
	if o.docs != "" {
		return report.Write(o.docs, workloads(), state.Rounds)
	}
	if err := state.Save(); err != nil {
		return err
	}
	return o.measure(ctx, chosen, state)
}

// measure runs the chosen workloads and prints their tables.
func (o options) measure(ctx context.Context, chosen []measure.Workload, state *measure.State) (err error) {
	brokers := rig.New(func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) })
	defer func() { err = errors.Join(err, brokers.Close()) }()
	opts := measure.Options{Scale: o.scale, Rounds: o.rounds, Profiles: o.profiles, Commit: commit(), Log: os.Stderr}
	for _, w := range chosen {
		if err := measure.Run(ctx, w, brokers, state, opts); err != nil {
			return err
		}
		if o.profiles != "" {
			continue
		}
		if err := report.Table(os.Stdout, w, state.Rounds); err != nil {
			return err
		}
	}
	return nil
}

type options struct {
	only, state, docs string
	systems           *regexp.Regexp // or nil
	profiles          string
	scale             float64
	rounds            int
	fresh, list       bool
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.only, "only", "", "the workloads to run, with commas between; default all")
	flags.Func("systems", "run only systems whose names match this regular expression", func(s string) (err error) {
		o.systems, err = regexp.Compile(s)
		return err
	})
	flags.Float64Var(&o.scale, "scale", 1, "the size, 1 being full")
	flags.IntVar(&o.rounds, "rounds", 0, "how often each system runs; default the workload's own number, 9 for most")
	flags.StringVar(&o.state, "state", "run", "where rounds are kept")
	flags.BoolVar(&o.fresh, "fresh", false, "forget the rounds of the chosen workloads first")
	flags.BoolVar(&o.list, "list", false, "list workloads and systems")
	flags.StringVar(&o.docs, "docs", "", "write performance.json, .md and pictures of the state folder here, and run nothing")
	flags.StringVar(&o.profiles, "profile", "", "write profiles of one round of each system that is this project here, and keep no round")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.scale <= 0 || o.scale > 1 {
		return o, fmt.Errorf("-scale %v: more than 0, at most 1", o.scale)
	}
	testing.Init() // package brokers asks for -short
	return o, flag.CommandLine.Parse(nil)
}

// workloads are all, in the order in which they run.
func workloads() []measure.Workload {
	return slices.Concat(inproc.Workloads(), kafka.Workloads(), rabbitmq.Workloads())
}

func choose(only string) ([]measure.Workload, error) {
	if only == "" {
		return workloads(), nil
	}
	var chosen []measure.Workload
	for name := range strings.SplitSeq(only, ",") {
		w, err := find(name)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, w)
	}
	return chosen, nil
}

// pick leaves of each workload the systems whose names match, all if match is nil.
func pick(from []measure.Workload, match *regexp.Regexp) {
	for i := range from {
		if match != nil {
			from[i].Systems = slices.DeleteFunc(from[i].Systems, func(s measure.System) bool { return !match.MatchString(s.Name) })
		}
	}
}

func find(name string) (measure.Workload, error) {
	for _, w := range workloads() {
		if w.Name == name {
			return w, nil
		}
	}
	return measure.Workload{}, fmt.Errorf("no workload %q: see -list", name)
}

func child(ctx context.Context, workload, system string) error {
	w, err := find(workload)
	if err != nil {
		return err
	}
	for _, s := range w.Systems {
		if s.Name == system {
			return measure.RunChild(ctx, s)
		}
	}
	return fmt.Errorf("%s has no system %q", workload, system)
}

func list() {
	for _, w := range workloads() {
		fmt.Printf("%s: %s\n  %s\n", w.Name, w.Title, w.Does)
		for _, s := range w.Systems {
			fmt.Printf("    %s %s\n", s.Name, s.Version)
		}
	}
}

// commit is what is checked out, with a "+" when there are changes.
func commit() string {
	out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	id := strings.TrimSpace(string(out))
	if dirty, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no").Output(); err != nil || len(dirty) > 0 {
		id += "+"
	}
	return id
}
