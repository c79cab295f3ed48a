package measure

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
)

// Options say how much of a workload is run.
type Options struct {
	// Scale is the part of the full size.
	Scale float64
	// Rounds replaces a workload's own number when above 0.
	Rounds int
	// Commit is what is measured.
	Commit string
	// Profiles is a folder for the profiles of a round of each system that is this project; such rounds are not kept.
	Profiles string
	// Log is told each round.
	Log io.Writer

	built string
}

// Rig makes what a round needs: a group of its own, a queue that is full again. Settled asks the broker, after the round, whether all of
// it was committed or acknowledged.
type Rig interface {
	Prepare(ctx context.Context, w Workload, messages int) (Input, error)
	Settled(ctx context.Context, in Input) error
}

const defaultRounds = 9

// Run runs the rounds of w that the state does not have yet, the systems in turns.
func Run(ctx context.Context, w Workload, rig Rig, state *State, o Options) error {
	rounds := w.Rounds
	if rounds == 0 {
		rounds = defaultRounds
	}
	if o.Rounds > 0 {
		rounds = o.Rounds
	}
	messages := max(int(float64(w.Messages)*o.Scale), w.Least)
	if o.Profiles != "" {
		return profile(ctx, w, rig, o, messages)
	}
	o.built = filepath.Join(filepath.Dir(state.path), "built")
	if err := setup(ctx, w, o); err != nil {
		return err
	}
	for round := range rounds {
		for _, s := range turns(w.Systems, round) {
			due := round
			if s.Once {
				due = 0
			}
			if round > due || state.done(w.Name, s.Name, s.share(messages)) > round {
				continue
			}
			if err := one(ctx, w, s, rig, state, o, round, messages); err != nil {
				return err
			}
		}
	}
	return nil
}

// turns are the systems in the order of a round: another begins each time, so that what one leaves behind (caches, a broker at work) is not
// always the same one's.
func turns(systems []System, round int) []System {
	first := round % max(len(systems), 1)
	return slices.Concat(systems[first:], systems[:first])
}

// setup builds what systems of w need.
func setup(ctx context.Context, w Workload, o Options) error {
	for _, s := range w.Systems {
		if s.Setup == nil {
			continue
		}
		if err := s.Setup(ctx, o.built); err != nil {
			return fmt.Errorf("%s, %s: %w", w.Name, s.Name, err)
		}
	}
	return nil
}

func (s System) share(messages int) int {
	if s.Fraction > 0 {
		return max(int(float64(messages)*s.Fraction), 1)
	}
	return messages
}

func one(ctx context.Context, w Workload, s System, rig Rig, state *State, o Options, round, messages int) error {
	r, err := play(ctx, w, s, rig, o, messages)
	if err != nil {
		return err
	}
	r.Round, r.Commit = round, o.Commit
	return state.add(r)
}

// profile runs each system that is this project once, with its profiles on.
func profile(ctx context.Context, w Workload, rig Rig, o Options, messages int) error {
	for _, s := range w.Systems {
		if !s.Ours() {
			continue
		}
		r, err := play(ctx, w, s, rig, o, messages)
		if err != nil {
			return err
		}
		r.Commit = o.Commit
		if err := describe(ctx, o.profilesOf(w, s), r); err != nil {
			return err
		}
	}
	return nil
}

// profilesOf is the folder of the profiles of one system.
func (o Options) profilesOf(w Workload, s System) string {
	return filepath.Join(o.Profiles, w.Name, strings.Map(fileName, s.Name))
}

// play runs one round and tells what it reached.
func play(ctx context.Context, w Workload, s System, rig Rig, o Options, messages int) (Round, error) {
	if s.Partitions > 0 {
		w.Needs.Partitions = s.Partitions
	}
	in, err := rig.Prepare(ctx, w, s.share(messages))
	if err != nil {
		return Round{}, fmt.Errorf("%s: prepare: %w", w.Name, err)
	}
	in.Messages, in.Built = s.share(messages), o.built
	if o.Profiles != "" {
		in.Profile = o.profilesOf(w, s)
	}
	r, err := spawn(ctx, w, s, in)
	if err != nil {
		return Round{}, err
	}
	if !s.Reads {
		if err := rig.Settled(ctx, in); err != nil {
			return Round{}, fmt.Errorf("%s, %s: %w", w.Name, s.Name, err)
		}
	}
	late := ""
	if r.Latency != nil {
		late = ", " + r.Latency.String()
	}
	fmt.Fprintf(o.Log, "%-16s %-28s %10.0f messages/s, %6.2f CPU s, %5.0f MiB, %.3f allocations a message%s\n",
		w.Name, s.Name, r.Rate(), r.CPU, r.RSS, r.Mallocs, late)
	return r, nil
}

// fileName keeps what is safe in the name of a folder.
func fileName(r rune) rune {
	if r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' {
		return r
	}
	return '_'
}
