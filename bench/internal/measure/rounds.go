package measure

import (
	"context"
	"fmt"
	"io"
)

// Options say how much of a workload is run.
type Options struct {
	// Scale is the part of the full size.
	Scale float64
	// Rounds replaces a workload's own number when above 0.
	Rounds int
	// Commit is what is measured.
	Commit string
	// Log is told each round.
	Log io.Writer
}

// Rig makes what a round needs: a group of its own, a queue that is full again.
type Rig interface {
	Prepare(ctx context.Context, w Workload, messages int) (Input, error)
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
	for round := range rounds {
		for _, s := range w.Systems {
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

func (s System) share(messages int) int {
	if s.Fraction > 0 {
		return max(int(float64(messages)*s.Fraction), 1)
	}
	return messages
}

func one(ctx context.Context, w Workload, s System, rig Rig, state *State, o Options, round, messages int) error {
	in, err := rig.Prepare(ctx, w, s.share(messages))
	if err != nil {
		return fmt.Errorf("%s: prepare: %w", w.Name, err)
	}
	in.Messages = s.share(messages)
	r, err := spawn(ctx, w, s, in)
	if err != nil {
		return err
	}
	r.Round, r.Commit = round, o.Commit
	fmt.Fprintf(o.Log, "%-16s %-28s round %d: %10.0f messages/s, %6.2f CPU s, %5.0f MiB, %.3f allocations a message\n",
		w.Name, s.Name, round+1, r.Rate(), r.CPU, r.RSS, r.Mallocs)
	return state.add(r)
}
