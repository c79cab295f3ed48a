package inproc

import (
	"encoding/binary"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/broadway"
)

// Names of systems that targets speak of.
const (
	self        = "broadway"
	channels100 = "channels, slices of 100"
	channels10  = "channels, slices of 10"
	smallest    = "the smallest program that does it"
)

// Versions, as in go.mod.
const (
	watermillVersion = "1.5.1"
	benthosVersion   = "4.76.0"
)

// Workloads are those without a broker.
func Workloads() []measure.Workload {
	return append([]measure.Workload{stagesAlone(), inProcess(), keyed(), latency()}, growth()...)
}

func stagesAlone() measure.Workload {
	const large, small = "stages, demand 1000", "stages, demand 10"
	return measure.Workload{
		Name: "stages", Title: "Stages alone",
		Does: "Stages move numbers, made in slices as they are asked for, from a producer to a consumer that adds them up. The channels do the work of " +
			"a pipeline, messages of 200 bytes through workers and a batcher, as in the table that the targets were set by; the bare channel of " +
			"numbers is like for like.",
		Messages: 20_000_000, Least: 1_000_000,
		Systems: []measure.System{
			{Name: channels100, Run: channels(2, 100)},
			{Name: channels10, Run: channels(10, 10)},
			{Name: "one channel of numbers, 500", Run: channelNumbers(500)},
			{Name: "one channel of numbers, 5", Run: channelNumbers(5)},
			{Name: large, Run: stages(1000, 0)},
			{Name: small, Run: stages(10, 0)},
			{Name: large + ", three", Run: stages(1000, 1)},
			{Name: small + ", three", Run: stages(10, 1)},
		},
		Targets: []measure.Target{
			{System: large, Peer: channels100, Measure: "rate", AtLeast: 16},
			{System: small, Peer: channels10, Measure: "rate", AtLeast: 1.8},
		},
	}
}

func inProcess() measure.Workload {
	const watermill, watermillBest = "watermill gochannel, publish waits", "watermill gochannel, 10 topics, 100 unacked"
	const benthosHundred, benthosBest = "benthos, batches of 100", "benthos, batches of 1000"
	return measure.Workload{
		Name: "inprocess", Title: "In process, batches of 100",
		Does: "Messages of 200 bytes are made as they are asked for, read by workers, collected into batches of 100, added up and acknowledged. Watermill knows no " +
			"batches, and Benthos passes on those that its source makes, which is its fastest.",
		Messages: 5_000_000, Least: 200_000,
		Systems: []measure.System{
			{Name: channels100, Run: channels(2, 100)},
			{Name: channels10, Run: channels(10, 10)},
			{Name: "channels, one at a time", Run: singles(2)},
			{Name: self, Run: pipeline(shape{workers: 2, demand: 500})},
			{Name: self + ", defaults", Run: pipeline(shape{})},
			{Name: smallest, Run: limit},
			{Name: watermill, Version: watermillVersion, Fraction: 0.05, Run: goChannel{topics: 10}.run},
			{Name: watermillBest, Version: watermillVersion, Fraction: 0.05, Run: goChannel{topics: 10, unacked: 1}.run},
			benthosShape{size: 1, threads: 2, collect: batchSize, inFlight: 2}.system("benthos, one at a time", 0.02),
			benthosShape{size: batchSize, threads: 2, inFlight: 10}.system(benthosHundred, 0.2),
			benthosShape{size: 1000, threads: 4, inFlight: 10}.system(benthosBest, 0.2),
		},
		Targets: []measure.Target{
			{System: self, Peer: channels100, Measure: "rate", AtLeast: 1.5},
			{System: self, Peer: watermill, Measure: "rate", AtLeast: 25},
			{System: self, Peer: watermillBest, Measure: "rate", AtLeast: 25},
			{System: self, Peer: benthosHundred, Measure: "rate", AtLeast: 25},
			{System: self, Peer: benthosBest, Measure: "rate", AtLeast: 25},
			{System: self, Measure: "allocs", AtMost: 0.05},
		},
	}
}

func keyed() measure.Workload {
	const keys = 10_000
	return measure.Workload{
		Name: "inprocess-keys", Title: "In process, ordered by 10,000 keys",
		Does:     "The same with PartitionBy, beside the same pipeline without it.",
		Messages: 5_000_000, Least: 200_000,
		Systems: []measure.System{
			{Name: self, Run: pipeline(shape{workers: 2, demand: 500})},
			{Name: self + ", by key", Run: pipeline(shape{workers: 2, demand: 500, partitionBy: byKey(keys)})},
		},
		Targets: []measure.Target{{System: self + ", by key", Peer: self, Measure: "rate", AtLeast: 0.6}},
	}
}

// byKey orders by so many keys.
func byKey(keys uint64) func(*broadway.Message) uint64 {
	return func(m *broadway.Message) uint64 { return binary.LittleEndian.Uint64(m.Payload) % keys }
}
