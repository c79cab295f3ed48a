package measure

import (
	"context"
	"os"
	"testing"
)

func TestStateGoesOnWhereItWas(t *testing.T) {
	dir := t.TempDir()
	keep := func(string) bool { return false }
	state, err := OpenState(dir, keep)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Round{{Workload: "w", System: "a", Messages: 10}, {Workload: "w", System: "a", Messages: 20}, {Workload: "v", System: "a", Messages: 10}} {
		if err := state.add(r); err != nil {
			t.Fatal(err)
		}
	}
	again, err := OpenState(dir, keep)
	if err != nil {
		t.Fatal(err)
	}
	if n := again.done("w", "a", 10); n != 1 || len(again.Rounds) != 3 {
		t.Errorf("%d rounds of w, a and 10 messages, %d in all", n, len(again.Rounds))
	}
	fresh, err := OpenState(dir, func(w string) bool { return w == "w" })
	if err != nil {
		t.Fatal(err)
	}
	if err := fresh.Save(); err != nil {
		t.Fatal(err)
	}
	if left, err := OpenState(dir, keep); err != nil || len(left.Rounds) != 1 || left.Rounds[0].Workload != "v" {
		t.Errorf("after a fresh start of w: %+v, %v", left.Rounds, err)
	}
}

func TestStateRefusesWhatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/rounds.jsonl", []byte("{\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenState(dir, func(string) bool { return false }); err == nil {
		t.Error("half a line was read")
	}
}

func TestOutputMustBeWhole(t *testing.T) {
	in := Input{Messages: 3}
	for name, o := range map[string]Output{
		"one too few":          {Messages: 2, Sum: 6, Elapsed: 1},
		"one read twice":       {Messages: 3, Sum: 5, Elapsed: 1},
		"took no time":         {Messages: 3, Sum: 6},
		"one more than it was": {Messages: 4, Sum: 6, Elapsed: 1},
	} {
		if o.check(in) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := (Output{Messages: 3, Sum: 6, Elapsed: 1}).check(in); err != nil {
		t.Error(err)
	}
}

func TestReadRefusesWhatWasNotWritten(t *testing.T) {
	slab := Slab(7, 2)
	if got := Read(slab[Payload:]); got != 9 {
		t.Errorf("message 8 holds %d, want 9", got)
	}
	slab[Payload+100]++
	if got := Read(slab[Payload:]); got != 0 {
		t.Errorf("a broken message holds %d, want 0", got)
	}
	if got := Read(slab[:Payload-1]); got != 0 {
		t.Errorf("half a message holds %d, want 0", got)
	}
}

// fake counts what it was asked for.
type fake struct{ prepared []int }

func (f *fake) Prepare(_ context.Context, _ Workload, n int) (Input, error) {
	f.prepared = append(f.prepared, n)
	return Input{}, os.ErrInvalid
}

func (f *fake) Settled(context.Context, Input) error { return nil }

func TestRunAsksForWhatASlowSystemMoves(t *testing.T) {
	w := Workload{Name: "w", Messages: 1000, Systems: []System{{Name: "slow", Fraction: 0.1}}}
	var rig fake
	state, err := OpenState(t.TempDir(), func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), w, &rig, state, Options{Scale: 1}); err == nil || len(rig.prepared) != 1 || rig.prepared[0] != 100 {
		t.Errorf("prepared %v, %v", rig.prepared, err)
	}
}

func TestAnotherSystemBeginsEachRound(t *testing.T) {
	systems := []System{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	for round, want := range []string{"abc", "bca", "cab", "abc"} {
		order := ""
		for _, s := range turns(systems, round) {
			order += s.Name
		}
		if order != want {
			t.Errorf("round %d runs %s, want %s", round, order, want)
		}
	}
}
