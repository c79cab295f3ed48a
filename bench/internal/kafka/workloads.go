package kafka

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/bench/internal/parallelconsumer"
)

// Names of systems that targets speak of.
const (
	self            = "broadway, unordered"
	perKey          = "broadway, per key"
	franzPoll       = "franz-go, poll loop"
	franzLarge      = "franz-go, poll loop, 8 MiB a partition"
	franzMany       = "franz-go, goroutines"
	goReader        = "kafka-go Reader"
	smallest        = "own fetch, no pipeline"
	goGenerations   = "kafka-go generations"
	watermillRouted = "watermill router"
	watermillSub    = "watermill subscriber"

	javaUnordered = "Parallel Consumer, unordered"
	javaPerKey    = "Parallel Consumer, per key"
	javaDefaults  = "Parallel Consumer, per key, default JVM"
)

// Versions, as in go.mod.
const (
	franzVersion     = "1.22.2"
	kafkaGoVersion   = "0.4.51"
	saramaVersion    = "1.61.1"
	watermillVersion = "1.5.1, kafka 3.0.6"
)

// Workloads are those on Kafka.
func Workloads() []measure.Workload {
	all := []measure.Workload{drain(""), drain("lz4"), drain("zstd")}
	for _, partitions := range []int{8, 1} {
		for _, workers := range []int{50, 200} {
			all = append(all, slow(partitions, workers))
		}
	}
	return append(all, latency(1000), latency(10_000), growPartitions(), growBacklog())
}

// many is a pipeline for fast handlers: three workers a core of the two, as two leave an eighth of the cores idle here, and enough unsettled for
// large fetches.
var many = shape{workers: 6, demand: 1000, unordered: true}

func drain(codec string) measure.Workload {
	name, title := "kafka", "Kafka drain, uncompressed"
	if codec != "" {
		name, title = "kafka-"+codec, "Kafka drain, "+codec
	}
	ordered := many
	ordered.unordered = false
	w := measure.Workload{
		Name: name, Title: title,
		Does: "A topic of 8 partitions is read by a group from its start, each message processed, in batches of 100 with this project, and committed to its end. " +
			"Joining and committing count, with this project leaving as well. kafka-go's Conn knows no groups: it only reads.",
		Messages: 10_000_000, Least: 200_000,
		Needs: measure.Needs{Kafka: true, Partitions: 8, Codec: codec, Keys: 0},
		Systems: []measure.System{
			{Name: self, Run: pipeline(many)},
			{Name: perKey, Run: pipeline(ordered)},
			{Name: franzPoll, Version: franzVersion, Run: franz(false, 0)},
			{Name: franzLarge, Version: franzVersion, Run: franz(false, 0, kgo.FetchMaxPartitionBytes(8<<20), kgo.FetchMaxBytes(8<<20))},
			{Name: franzMany, Version: franzVersion, Run: franz(true, 0)},
			{Name: "kafka-go Conn, batches", Version: kafkaGoVersion, Reads: true, Run: connections},
			{Name: goGenerations, Version: kafkaGoVersion, Run: generations(0)},
			{Name: goReader, Version: kafkaGoVersion, Run: reader(0)},
			{Name: "sarama", Version: saramaVersion, Run: saramaGroup},
			{Name: watermillSub, Version: watermillVersion, Fraction: 0.1, Once: true, Run: watermillSubscriber},
			{Name: watermillRouted, Version: watermillVersion, Fraction: 0.1, Once: true, Run: watermillRouter(0)},
		},
		Targets: []measure.Target{
			{System: self, Peer: franzPoll, Measure: "rate", AtLeast: 1.3},
			{System: self, Peer: franzLarge, Measure: "rate", AtLeast: 1.3},
			{System: self, Peer: franzMany, Measure: "rate", AtLeast: 1.3},
			{System: self, Peer: goReader, Measure: "rate", AtLeast: 2.5},
			{System: self, Peer: watermillSub, Measure: "rate", AtLeast: 10},
			{System: self, Peer: watermillRouted, Measure: "rate", AtLeast: 10},
			{System: self, Peer: franzPoll, Measure: "cpu", AtMost: 1},
			{System: self, Measure: "rss", AtMost: 96},
			{System: self, Measure: "allocs", AtMost: 0.05},
		},
	}
	if codec == "" { // it decompresses nothing
		w.Systems = append(w.Systems, measure.System{Name: smallest, Run: limit})
	}
	return w
}

func slow(partitions, workers int) measure.Workload {
	limit := fmt.Sprintf("%d bare goroutines", workers)
	const sleep = time.Millisecond
	s := shape{workers: workers, sleep: sleep}
	unordered := s
	unordered.unordered = true
	w := measure.Workload{
		Name:     fmt.Sprintf("slow-%d-%d", workers, partitions),
		Title:    fmt.Sprintf("Handlers of 1 ms, %d workers, partitions: %d", workers, partitions),
		Does:     "A topic with 10,000 keys is read by a group, each message handled for 1 ms of sleep, with this project in batches of 100, and committed. The bare goroutines sleep and do nothing else; what handles one message of a partition at a time moves a part of the messages. Parallel Consumer runs with " + parallelconsumer.Modest + ", or with the JVM's defaults.",
		Messages: 200_000, Least: 20_000, Rounds: 3,
		Needs: measure.Needs{Kafka: true, Partitions: partitions, Keys: 10_000},
		Systems: []measure.System{
			{Name: limit, Reads: true, Run: bare(workers, sleep)},
			{Name: "own fetch, a channel to goroutines", Run: limitSlow(workers, sleep)},
			{Name: self, Run: pipeline(unordered)},
			{Name: perKey, Run: pipeline(s)},
			parallel(javaUnordered, parallelconsumer.Modest, workers, parallelconsumer.Unordered, sleep),
			parallel(javaPerKey, parallelconsumer.Modest, workers, parallelconsumer.Key, sleep),
		},
		Targets: slowTargets(limit, workers),
	}
	w.Systems = append(w.Systems, byPartition(partitions, sleep)...)
	if workers == 50 {
		w.Systems = append(w.Systems, parallel(javaDefaults, parallelconsumer.Defaults, workers, parallelconsumer.Key, sleep))
	}
	return w
}

// slowTargets are those of handlers that sleep: the share of the limit, and what Parallel Consumer reaches with as many threads. With 50
// and no order it comes so near to the limit that the limit is the target.
func slowTargets(limit string, workers int) []measure.Target {
	share := 0.95
	if workers > 50 {
		share = 0.9
	}
	targets := []measure.Target{
		{System: self, Peer: limit, Measure: "rate", AtLeast: share},
		{System: perKey, Peer: limit, Measure: "rate", AtLeast: share},
	}
	if workers > 50 {
		return append(targets,
			measure.Target{System: self, Peer: javaUnordered, Measure: "rate", AtLeast: 2.5},
			measure.Target{System: perKey, Peer: javaPerKey, Measure: "rate", AtLeast: 2.5})
	}
	return append(targets,
		measure.Target{System: perKey, Peer: javaPerKey, Measure: "rate", AtLeast: 1.3},
		measure.Target{System: perKey, Peer: javaPerKey, Measure: "rss", AtMost: 1. / 7},
		measure.Target{System: perKey, Peer: javaDefaults, Measure: "rss", AtMost: 1. / 7})
}

// byPartition are peers that handle one message of a partition at a time, or of all of them.
func byPartition(partitions int, sleep time.Duration) []measure.System {
	const one = 1. / 50 // of the messages take seconds, one after another
	all := one * float64(partitions)
	return []measure.System{
		{Name: franzMany, Version: franzVersion, Once: true, Fraction: all, Run: franz(true, sleep)},
		{Name: goGenerations, Version: kafkaGoVersion, Once: true, Fraction: all, Run: generations(sleep)},
		{Name: watermillRouted, Version: watermillVersion, Once: true, Fraction: all, Run: watermillRouter(sleep)},
		{Name: goReader, Version: kafkaGoVersion, Once: true, Fraction: one, Run: reader(sleep)},
	}
}

func parallel(name, jvm string, workers int, order parallelconsumer.Ordering, sleep time.Duration) measure.System {
	return measure.System{
		Name: name, Version: parallelconsumer.Version,
		Setup: parallelconsumer.Setup, Run: parallelconsumer.Run(jvm, workers, order, sleep),
	}
}
