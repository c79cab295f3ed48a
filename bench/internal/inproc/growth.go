package inproc

import (
	"fmt"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// flat is how much a figure may differ over an axis.
const flat = 1.1

// growth has one pipeline along each of its axes, over three decades.
func growth() []measure.Workload {
	return []measure.Workload{growWorkers(), growKeys(), growBatches(), growSizes()}
}

// growing is a workload along an axis, whose points are the systems.
func growing(name, axis, does string, systems []measure.System, targets ...string) measure.Workload {
	w := measure.Workload{
		Name: "growth-" + name, Title: "Growth: " + axis, Axis: axis, Does: does,
		Messages: 3_000_000, Least: 100_000, Rounds: 3, Systems: systems,
	}
	for _, what := range targets {
		w.Targets = append(w.Targets, measure.Target{Measure: what, AtMost: flat})
	}
	return w
}

func growWorkers() measure.Workload {
	var systems []measure.System
	for _, n := range []int{1, 10, 100, 1000} {
		systems = append(systems, measure.System{Name: fmt.Sprintf("%s, %d workers", self, n), Run: pipeline(shape{workers: n})})
	}
	return growing("workers", "workers", "The pipeline of the workload in process, whose workers each ask for 10 messages, as by default, so that with few of them what is done once for each fetch is shared by few messages. "+
		"With many, a worker's part of a fetch is a single message, which is handed to the batcher by itself. With more workers more is in flight. What a process has at least (goroutines, Go's smallest heap of 4 MiB) does not grow with it, so that it counts for more where "+
		"little is in flight.", systems, "cpu", "rss/flight")
}

func growKeys() measure.Workload {
	var systems []measure.System
	for _, n := range []int{10, 100, 1000, 10_000} {
		systems = append(systems, measure.System{
			Name: fmt.Sprintf("%s, %d keys", self, n), Run: pipeline(shape{workers: 2, demand: 500, partitionBy: byKey(uint64(n))}),
		})
	}
	return growing("keys", "keys", "The same with PartitionBy on so many keys, by 2 workers, who have 128 lanes. The more of these are in use, the fewer messages of a fetch "+
		"share one: to hand a lane to a worker, to begin and to let go of it is the term that grows, until all are in use.", systems, "cpu")
}

func growBatches() measure.Workload {
	var systems []measure.System
	for _, n := range []int{1, 10, 100, 1000} {
		systems = append(systems, measure.System{
			Name: fmt.Sprintf("%s, batches of %d", self, n), Run: pipeline(shape{workers: 2, demand: 500, batch: n}),
		})
	}
	return growing("batches", "batch size", "The same in batches of so many, by 2 workers. What is done once for each batch (a reporter is woken and its context made, the batch is observed, "+
		"acknowledged and returned) is the term that grows as batches get smaller.", systems, "cpu")
}

func growSizes() measure.Workload {
	var systems []measure.System
	for _, point := range []struct {
		size int
		part float64
	}{{100, 1}, {1000, 0.5}, {10_000, 0.05}, {100_000, 0.005}} {
		systems = append(systems, measure.System{
			Name: fmt.Sprintf("%s, %d bytes", self, point.size), Fraction: point.part,
			Run: pipeline(shape{workers: 2, demand: 500, size: point.size}),
		})
	}
	return growing("sizes", "message size", "The same with messages of so many bytes, by 2 workers; 1.5 GB in all of each size but the smallest, of which there is a fifth. "+
		"Each byte is allocated, written and read, which is the term that grows: a loop that does nothing else takes as long for each byte, half a nanosecond on the machine of 2026.", systems, "cpu", "rss/flight")
}
