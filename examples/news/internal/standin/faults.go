package standin

import (
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"time"
)

// Faults says how often, in calls of a thousand, a platform misbehaves. The zero
// value is a world without faults.
type Faults struct {
	// Down answers 503 and has done nothing.
	Down int
	// Broken answers 500 although the effect took place.
	Broken int
	// Limited answers 429 with Retry-After and has done nothing.
	Limited int
	// Hung never answers and has done nothing.
	Hung int
	// Vanished never answers although the effect took place.
	Vanished int
	// Refused answers 422 to every attempt for the same key: no retry helps.
	Refused int
	// Relentless lifts the rule that a key meets at most three faults.
	Relentless bool
}

// mostInARow is how many faults one key meets unless Faults.Relentless.
const mostInARow = 3

// DefaultFaults makes about one call in twenty go wrong, and nothing for good.
func DefaultFaults() Faults {
	return Faults{Down: 20, Broken: 10, Limited: 4, Hung: 6, Vanished: 6}
}

// HarshFaults makes a fifth of the calls go wrong, and refuses a few posts for
// ever.
func HarshFaults() Faults {
	return Faults{Down: 80, Broken: 40, Limited: 10, Hung: 15, Vanished: 15, Refused: 10}
}

// Latency is how long a platform takes to answer, drawn evenly from Min to Max.
type Latency struct{ Min, Max time.Duration }

// fault is what goes wrong with one call.
type fault uint8

const (
	faultNone fault = iota
	faultDown
	faultBroken
	faultLimited
	faultHung
	faultVanished
	faultRefused
)

// dice draws faults and latencies. The same seed, platform, key and attempt
// draw the same, whatever else is going on.
type dice struct {
	seed    uint64
	faults  Faults
	latency Latency
}

func (d dice) rng(platform, key string, attempt int) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(platform + "\x00" + key + "\x00" + strconv.Itoa(attempt)))
	return rand.New(rand.NewPCG(d.seed, h.Sum64()))
}

// roll decides about the attempt-th call (from 1) for key.
func (d dice) roll(platform, key string, attempt int) (fault, time.Duration) {
	if d.rng(platform, key, 0).IntN(1000) < d.faults.Refused {
		return faultRefused, 0
	}
	rng := d.rng(platform, key, attempt)
	wait := d.latency.Min
	if spread := d.latency.Max - d.latency.Min; spread > 0 {
		wait += time.Duration(rng.Int64N(int64(spread)))
	}
	if attempt > mostInARow && !d.faults.Relentless {
		return faultNone, wait
	}
	at := rng.IntN(1000)
	for _, c := range []struct {
		f   fault
		per int
	}{
		{faultDown, d.faults.Down},
		{faultBroken, d.faults.Broken},
		{faultLimited, d.faults.Limited},
		{faultHung, d.faults.Hung},
		{faultVanished, d.faults.Vanished},
	} {
		if at -= c.per; at < 0 {
			return c.f, wait
		}
	}
	return faultNone, wait
}
