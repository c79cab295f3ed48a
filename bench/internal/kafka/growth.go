package kafka

import (
	"fmt"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// flat is how much a figure may differ over an axis.
const flat = 1.1

// growPartitions drains the same number of messages out of more and more partitions.
func growPartitions() measure.Workload {
	w := measure.Workload{
		Name: "growth-partitions", Title: "Growth: partitions", Axis: "partitions",
		Does: "As many messages lie in more and more partitions of a topic, and are drained as by the workload kafka, in batches of 100, without order. Joining, committing and leaving count: " +
			"what is done once for each partition (it is resolved, kept, asked for in each request, committed) is the term that grows. " +
			"With few partitions less waits in the client, at most MaxPartitionBytes of each, and one partition is asked for in smaller pieces, more often.",
		Messages: 3_000_000, Least: 200_000, Rounds: 3,
		Needs:   measure.Needs{Kafka: true},
		Targets: []measure.Target{{Measure: "cpu", AtMost: flat}, {Measure: "rss", AtMost: flat}},
	}
	for _, n := range []int{1, 10, 100, 1000} {
		w.Systems = append(w.Systems, measure.System{Name: fmt.Sprintf("broadway, %d partitions", n), Partitions: n, Run: pipeline(many)})
	}
	return w
}

// growBacklog drains more and more messages out of 8 partitions.
func growBacklog() measure.Workload {
	const most, small = "broadway, all", "broadway, 1 % of it"
	return measure.Workload{
		Name: "growth-backlog", Title: "Growth: backlog of 10,000,000", Axis: "backlog",
		Does: "More and more messages wait in a topic of 8 partitions, and are drained as by the workload kafka, in batches of 100, without order. Joining and leaving count, which is the term of CPU per " +
			"message that grows as there are fewer messages. Memory is compared with a backlog of 100,000: a smaller one is over before buffers and heap have grown at all.",
		Messages: 10_000_000, Least: 200_000, Rounds: 3,
		Needs: measure.Needs{Kafka: true, Partitions: 8},
		Systems: []measure.System{
			{Name: "broadway, 0.1 % of it", Fraction: 0.001, Run: pipeline(many)},
			{Name: small, Fraction: 0.01, Run: pipeline(many)},
			{Name: "broadway, 10 % of it", Fraction: 0.1, Run: pipeline(many)},
			{Name: most, Run: pipeline(many)},
		},
		Targets: []measure.Target{
			{System: most, Peer: small, Measure: "rss", Difference: true, AtMost: 8},
			{Measure: "cpu", AtMost: flat},
			{Measure: "rss", AtMost: flat},
		},
	}
}
