package measure

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestPercentilesAreOfTheNearestRank(t *testing.T) {
	thousand := make([]time.Duration, 1000)
	for i := range thousand {
		thousand[i] = time.Duration(1000-i) * time.Millisecond
	}
	for name, c := range map[string]struct {
		of   []time.Duration
		want Percentiles
	}{
		"none":     {nil, Percentiles{}},
		"one":      {[]time.Duration{5 * time.Millisecond}, Percentiles{5, 5, 5, 5}},
		"two":      {[]time.Duration{3 * time.Millisecond, time.Millisecond}, Percentiles{1, 3, 3, 3}},
		"thousand": {thousand, Percentiles{500, 990, 999, 1000}},
	} {
		if got := percentiles(c.of); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// A percentile has at least its part of all values at or below it, and is the lowest of the values that does.
func TestPercentilesProperty(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		values, all := make([]int, 1+random.IntN(3000)), []time.Duration(nil)
		for i := range values {
			values[i] = random.IntN(50)
			all = append(all, time.Duration(values[i])*time.Millisecond)
		}
		p := percentiles(slices.Clone(all))
		for part, got := range map[float64]float64{0.5: p.P50, 0.99: p.P99, 0.999: p.P999, 1: p.Max} {
			below, under := 0, 0
			for _, v := range values {
				if float64(v) <= got+1e-9 {
					below++
				}
				if float64(v) < got-1e-9 {
					under++
				}
			}
			if n := float64(len(values)); float64(below) < part*n-1e-6 || float64(under) >= part*n {
				t.Fatalf("%v of %d: %v, which %d do not exceed and %d are below", part, len(values), got, below, under)
			}
		}
	}
}

// by is the inverse of due, whatever does not divide a second evenly.
func FuzzPace(f *testing.F) {
	f.Add(uint16(10_000), uint8(0), uint32(0))
	f.Add(uint16(999), uint8(9), uint32(3_000_000_007))
	f.Add(uint16(7), uint8(2), uint32(1_000_000_000))
	f.Fuzz(func(t *testing.T, rate uint16, burst uint8, nanos uint32) {
		p, after := pace{rate: int(rate) + 1, burst: int(burst) + 1}, time.Duration(nanos)
		n := p.by(after)
		if p.due(n-1) > after || p.due(n) <= after {
			t.Fatalf("after %v: %d, of which the last is due at %v and the next at %v", after, n, p.due(n-1), p.due(n))
		}
		if n%p.burst != 0 || p.due(n-1) != p.due(n-p.burst) {
			t.Fatalf("after %v: half a burst: %d", after, n)
		}
	})
}

func TestPace(t *testing.T) {
	single, tens := pace{rate: 1000, burst: 1}, pace{rate: 1000, burst: 10}
	if single.due(0) != 0 || single.due(1500) != 1500*time.Millisecond || tens.due(19) != 10*time.Millisecond {
		t.Errorf("due: %v, %v, %v", single.due(0), single.due(1500), tens.due(19))
	}
	if single.by(-1) != 0 || single.by(0) != 1 || single.by(999*time.Microsecond) != 1 || tens.by(10*time.Millisecond) != 20 {
		t.Errorf("by: %d, %d, %d, %d", single.by(-1), single.by(0), single.by(999*time.Microsecond), tens.by(10*time.Millisecond))
	}
}

// A message that its sender could not send in time counts from when it was due.
func TestLatencyCountsFromWhenAMessageWasDue(t *testing.T) {
	const held = 80 * time.Millisecond
	l := NewLatency(first+100, 1000, 1)
	settle := make(chan int, 1000)
	out, err := l.Run(t.Context(), func(i int) error {
		if i == first+50 {
			<-time.After(held) // the source holds the sender up
		}
		settle <- i
		return nil
	}, func(context.Context) error {
		for {
			select {
			case i := <-settle:
				l.Settle(uint64(i)+1, time.Now())
			case <-l.Done():
				return nil
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := out.check(Input{Messages: first + 100}); err != nil {
		t.Error(err)
	}
	if got := time.Duration(out.Latency.Max * 1e6); got < held {
		t.Errorf("the latest was %v late, of a sender that was held up for %v", got, held)
	}
	// 49 were due while it was held up, of the 90 that count; half of them for at least half of the time.
	if got := time.Duration(out.Latency.P99 * 1e6); got < held/2 {
		t.Errorf("p99 is %v: those that were due meanwhile count from when they were sent", got)
	}
}

func TestLatencyEndsWithWhatGoesWrong(t *testing.T) {
	broken := errors.New("broken")
	wait := func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }
	if _, err := NewLatency(10, 1000, 1).Run(t.Context(), func(int) error { return broken }, wait); !errors.Is(err, broken) {
		t.Errorf("a sender that fails: %v", err)
	}
	nothing := func(int) error { return nil }
	if _, err := NewLatency(100, 1000, 1).Run(t.Context(), nothing, func(context.Context) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("a system that fails: %v", err)
	}
}

func TestLatencyCountsEachMessageOnce(t *testing.T) {
	for name, c := range map[string]struct {
		settled []uint64
		ok      bool
	}{
		"all":            {[]uint64{1, 2, 3}, true},
		"one twice":      {[]uint64{1, 2, 2}, false},
		"one not whole":  {[]uint64{1, 0, 3}, false},
		"one that isn't": {[]uint64{1, 2, 3, 4}, true},
	} {
		l := NewLatency(3, 1000, 1)
		for _, n := range c.settled {
			l.Settle(n, time.Now())
		}
		out := l.output()
		out.Elapsed = 1
		if err := out.check(Input{Messages: 3}); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
