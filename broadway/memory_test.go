package broadway_test

import (
	"context"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// TestMemoryStaysFlatBehindABlockedReporter runs, in a process of its own, a
// pipeline whose reporter blocks for ever in front of a source that holds a
// million messages of 1 KiB: the heap stays at what the bound allows.
func TestMemoryStaysFlatBehindABlockedReporter(t *testing.T) {
	if os.Getenv("BROADWAY_BLOCKED") != "" {
		blockForEver(t)
		return
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMemoryStaysFlatBehindABlockedReporter$", "-test.v")
	child.Env = append(os.Environ(), "BROADWAY_BLOCKED=1")
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, line := range strings.Split(string(out), "\n") {
		if heap, ok := strings.CutPrefix(line, "heap "); ok {
			n, err := strconv.Atoi(heap)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("heap in use behind the blocked reporter: %d KiB", n>>10)
			if n > 32<<20 {
				t.Errorf("the heap grew to %d bytes", n)
			}
			return
		}
	}
	t.Fatalf("the process did not tell its heap:\n%s", out)
}

func blockForEver(t *testing.T) {
	const million = 1_000_000
	made := 0
	p, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{memory.New(memory.Config{Next: func(int) ([]byte, error) {
			if made == million {
				return nil, io.EOF
			}
			made++
			return make([]byte, 1024), nil
		}})},
		Processor:    broadway.ProcessorConfig{Handler: nothing},
		Batchers:     []broadway.BatcherConfig{{Reporter: func(ctx context.Context, _ *broadway.Batch) error { <-ctx.Done(); return ctx.Err() }}},
		MaxUnsettled: 2000,
		DrainTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := background(t, p)
	for p.Stats().Unsettled < 2000 {
		runtime.Gosched()
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	if _, err := os.Stdout.WriteString("\nheap " + strconv.FormatUint(m.HeapInuse, 10) + "\n"); err != nil {
		t.Fatal(err)
	}
	if st := p.Stats(); st.Unsettled != 2000 || st.Fetched != 2000 {
		t.Errorf("stats: %+v", st)
	}
	_ = stop() // cannot be clean
}

// TestABoundInBytesMayBeAsLargeAsANumber: who wants none asks for the largest, and
// messages come as many at a time as with another one.
func TestABoundInBytesMayBeAsLargeAsANumber(t *testing.T) {
	for _, bound := range []int64{0, 1 << 62, math.MaxInt64} {
		synctest.Test(t, func(t *testing.T) {
			observer := &broadwaytest.ObserverRecorder{}
			p := build(t, broadway.Config{
				Producers: []broadway.Producer{memory.New(memory.Config{Payloads: payloads(100)})},
				Processor: broadway.ProcessorConfig{Concurrency: 2, MaxDemand: 10, Handler: nothing},
				Observer:  observer, MaxUnsettled: 20, MaxUnsettledBytes: bound,
			})
			if err := p.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if first := observer.Fetches()[0]; first.Demand.Messages != 20 || first.Demand.Bytes < 1<<20 {
				t.Errorf("with a bound of %d bytes the first demand is %+v", bound, first.Demand)
			}
		})
	}
}
