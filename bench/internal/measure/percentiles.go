package measure

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Percentiles are those of latencies, in milliseconds.
type Percentiles struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
	Max  float64 `json:"max"`
}

// String has the three.
func (p Percentiles) String() string {
	return fmt.Sprintf("p50 %.3f, p99 %.3f, p99.9 %.3f ms", p.P50, p.P99, p.P999)
}

// percentiles are exact, by nearest rank: the lowest value that so large a part of all does not exceed. It sorts latencies.
func percentiles(latencies []time.Duration) Percentiles {
	if len(latencies) == 0 {
		return Percentiles{}
	}
	slices.Sort(latencies)
	at := func(part float64) float64 {
		rank := int(math.Ceil(part * float64(len(latencies))))
		return latencies[max(rank, 1)-1].Seconds() * 1e3
	}
	return Percentiles{P50: at(0.5), P99: at(0.99), P999: at(0.999), Max: at(1)}
}
