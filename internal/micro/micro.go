// Package micro runs the micro-benchmarks of pure mechanisms and holds how often they allocate. Each package that has
// such mechanisms lists them once, for both: see [Op].
package micro

import "testing"

// Op is one operation of a mechanism in its steady state.
type Op struct {
	// Name says what is done, and how often where that is more than once.
	Name string
	// Allocs is how often Run allocates, exactly; [Unheld] says that nobody promises a number.
	Allocs int
	// Run does it. It must leave the mechanism as it found it, but for what may go on for ever, such as offsets.
	Run func()
}

// Unheld is the Allocs of an Op that may allocate as it likes, such as one that uses other people's code.
const Unheld = -1

// Benchmark measures each of ops as a sub-benchmark.
func Benchmark(b *testing.B, ops []Op) {
	for _, op := range ops {
		b.Run(op.Name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				op.Run()
			}
		})
	}
}

// Allocations fails t for each of ops that allocates more often, or less often, than it says. It must not run beside parallel
// tests. The race detector makes sync.Pool forget at random: an Op that uses one is [Unheld].
func Allocations(t *testing.T, ops []Op) {
	held := 0
	for _, op := range ops {
		if op.Allocs == Unheld {
			continue
		}
		held++
		if got := testing.AllocsPerRun(100, op.Run); got != float64(op.Allocs) {
			t.Errorf("%s: %v allocations, want exactly %d", op.Name, got, op.Allocs)
		}
	}
	if held == 0 {
		t.Error("no number of allocations is held")
	}
}
