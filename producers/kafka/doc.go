// Package kafka consumes Kafka topics by demand, as a member of a consumer
// group, and publishes to them.
//
//	source := kafka.NewProducer(kafka.Config{
//		Brokers: []string{"127.0.0.1:19092"},
//		Topics:  []string{"orders"},
//		Group:   "billing",
//	})
//	pipeline, err := broadway.New(broadway.Config{
//		Producers: []broadway.Producer{source},
//		...
//	})
//
// # Guarantees
//
// A message is committed only after the pipeline has settled it and everything
// before it in its partition: the commit is the longest settled prefix, per
// ownership of a partition. Dead-lettered and dropped messages count as
// settled; nothing else that failed does. So every message is handled at least
// once, over rebalances, crashes and broker outages, and what is handled twice
// after a crash is bounded: at most [Config.Window] messages per partition
// are handed out and not durably committed.
//
// What has settled above the commit travels in its metadata, up to 4,096 characters,
// nearest to the commit first, so that the partition's next owner repeats only what
// was open or settled since the last commit. It is believed only if its checksum, its
// offset, the topic's id and the leader epoch of the highest offset are confirmed (which
// takes Kafka 2.8); on doubt it is dropped, counted in [Stats] and handled again. For
// metadata of other programs see [Config.ForeignMetadata].
//
// A message that kills its process is found, and given up once its attempts are
// exhausted ([broadway.ErrAttemptsExhausted]), over restarts and by whichever member
// gets it: after two ownerships of its partition that ended without a word, within
// one window, what the second had handed out is tried one message at a time, and
// each try is told in a commit before. Meanwhile the member's other partitions wait,
// for a minute for a message, and twice as long after each further start; then they
// go on, and the message does not count as tried. An ownership that ended as its
// member was lost by the group looks the same until that member comes back, and a
// process that died of something else while it tried a message alone does so for good.
// See [Stats].
//
// Messages of equal (topic, partition, key) are handled in order. Messages
// without a key have no order among themselves.
//
// Control records of transactions are never handed out. Null payloads
// (tombstones) arrive as nil, empty ones as empty.
//
// # Demand and memory
//
// Nothing is fetched unless the pipeline asks. A partition is fetched only
// while it has room: its share of the pipeline's bound (half of it, when several
// partitions are owned) is not used up, its window is open, and half of what was
// fetched before is handed out; all of it, once a response of MaxBytes waits or is under
// way from its broker. Brokers answer with whole batches, which may hold more
// than was asked for; the rest waits in the client, undelivered. The client holds at most two responses of
// MaxBytes per broker, and decompresses only what it hands out: batches are open, decompressed,
// until their last message is handed out, and take twice MaxBytes and one batch in sum.
// Of a partition with compressed batches so many are asked for as grow to MaxPartitionBytes,
// as those before them did, and one at least.
//
// Each broker that leads partitions of this member has up to four connections
// for fetching (two for partitions that are behind, two long polls for those at
// the tail, so that an idle partition never delays a busy one) and one for all
// else; the group's coordinator has one more. The second long poll is for partitions
// that come to the tail while there is one: it takes 5 ms at most, and then both go
// on as one, unless it brings nothing or MinBytes is above 1: then both last.
//
// # Rebalances
//
// When the group rebalances the producer stops handing out, the pipeline
// releases what no handler holds and flushes open batches, and what settles
// within min(10 s, the rebalance time-out less a margin) is committed on the
// ending generation, while heartbeats keep the member alive. The rest is left
// uncommitted: its next owner handles it again.
//
// Unless the partition returns with the next assignment: then what handlers still run,
// and what has settled without a durable commit, goes on counting, and is committed in
// the new generation ([Stats].Kept). It must be sure that nobody else has committed for
// the partition meanwhile, and that topic and log are the same (which takes Kafka 2.8).
// Nothing more of the partition is handed out until the last of those handlers has
// returned, so that the order of keys holds.
//
// The group protocol is the classic one with eager rebalancing, as kafka-go
// speaks it. Do not mix members of other clients into one group: kafka-go does
// not understand the metadata that newer ones send.
//
// # Logs that change
//
// Each fetch names the topic by its id, where the broker can (Kafka 3.1 and
// later), and the leader epoch of the record before its position. A topic that
// was deleted and created anew is therefore never taken for the old one: it is
// read from its start, and its old commits count for nothing. A log that was cut,
// since its leader had lost records, is read again from the cut. Both are logged
// and counted: see [Producer.Stats]. Only a position before the start of the log,
// or one beyond its end of which no leader epoch is known, is the affair of
// [Config.OutOfRange].
//
// # Errors
//
// After the first connection nothing but [Config.OutOfRange] Fail ends a
// pipeline: the producer reconnects, follows leaders, waits for topics to appear
// and says in [Producer.Health] why it gets nothing.
package kafka
