package scenario

import "slices"

// All are the scenarios, in the order in which they run.
func All() []Scenario {
	return slices.Concat(processDeath(), groups(), queues(), network(), downstream(), malformed(), credentials(), machine(), content())
}

// processDeath are the scenarios A: consumer processes end.
func processDeath() []Scenario {
	return []Scenario{
		{
			ID: "A1", Severity: "S1", CI: true, Title: "SIGKILL of Kafka consumers", Run: killKafka,
			Limit: "3 processes, window 1,000 each, 20 kills with >= 100 unsettled: lost 0, commits never ahead, inversions 0, duplicates <= kills x window",
		},
		{
			ID: "A2", Severity: "S1", CI: true, Title: "SIGKILL of RabbitMQ consumers", Run: killRabbitMQ,
			Limit: "2 processes, prefetch 200, 10 kills with >= 100 unsettled: lost 0, no ack before the sink, duplicates <= kills x prefetch, all marked redelivered",
		},
		{
			ID: "A3", Severity: "S1", Title: "SIGKILL at each step between fetch and commit", Run: failPoints,
			Limit: "on either broker, 5 kills at each of 18 or 19 steps, in the process and on the wire: lost 0, commits and acks never ahead, no dead letter settled " +
				"unconfirmed, inversions 0, duplicates <= kills x window or prefetch",
		},
		{
			ID: "A4", Severity: "S1", Title: "SIGSTOP of consumers", Run: frozen,
			Limit: "10 times 9 s, longer than the broker waits, on either broker: lost 0, commits and acks never ahead nor stale, inversions 0, duplicates <= times x " +
				"window or prefetch",
		},
		{
			ID: "A5", Severity: "S1", Title: "Panics, Goexit, errors and hangs of user code", Run: contained,
			Limit: "either broker, 1 % of 100,000 ids, in handlers and in reporters: panic(string), panic(nil), Goexit, error, 30 s hang, a result for an alien message: " +
				"the process lives, dead letters are exactly those that always fail, lost 0, nothing settles twice, no goroutine is left; " +
				"duplicates 0 and inversions 0 on Kafka (handlers), duplicates <= what a struck batch had written (reporters, 8 attempts, since a batch fails as a whole)",
		},
		{
			ID: "A6", Severity: "S1", Title: "SIGTERM under load", Run: stops,
			Limit: "20 stops with batches half full: duplicates 0, exit code 0; a stuck handler: exit code not 0, its message named and not acknowledged; " +
				"a second SIGTERM ends without acknowledging unfinished work",
		},
	}
}

// groups are the scenarios B: groups, offsets and logs of Kafka.
func groups() []Scenario {
	return []Scenario{
		{
			ID: "B1", Severity: "S1", CI: true, Title: "Rebalance storm", Run: rebalanceStorm,
			Limit: "80 partitions, 12 members, 120 s: lost 0, commits never ahead, inversions 0, duplicates <= 2 %, every member back",
		},
		{
			ID: "B5", Severity: "S2", Title: "Slow and hung handlers", Run: slowHandlers,
			Limit: "5 handlings of 20 s with a session of 6 s: no rebalance, duplicates 0, the other partitions have 90 % of what comes meanwhile; one that never ends: " +
				"named within its time-out and 1 s, everything else goes on, and either unhealthy after a minute (looked at from half the size on) and an exit code " +
				"that is not 0, or a dead letter where it may be let go of; lost 0",
		},
		{
			ID: "B8", Severity: "S1", Title: "Deleted records, removed offsets", Run: lostPlaces,
			Limit: "a group at 10,000 of 50,000, deleted up to 20,000: policy fail names partition and both offsets, no commit; earliest tells of exactly 10,000 " +
				"skipped offsets, and of exactly what it skips when overtaken while it runs; offsets removed: all from the start; lost 0",
		},
		{
			ID: "B9", Severity: "S2", CI: true, Title: "Compacted topic, gaps, tombstones", Run: compacted,
			Limit: "100,000 puts on 1,000 keys, a tenth tombstones, after the cleaner: no lag within 30 s, each key ends with its last value, " +
				"each tombstone that a direct reader finds reaches the handler as nil",
		},
		{
			ID: "B10", Severity: "S1", CI: true, Title: "Transactions", Run: transactions,
			Limit: "300 transactions on 4 partitions, 10,000 messages committed and 5,000 aborted, one left open until it times out: read_committed sees exactly the " +
				"committed ones, read_uncommitted all, neither a marker; no lag",
		},
		{
			ID: "B11a", Severity: "S2", CI: true, Title: "SIGKILL of the Kafka broker", Run: killKafkaBroker,
			Limit: "5 kills, 10 s down each: lost 0, commits never ahead, inversions 0, duplicates <= kills x windows, none later than 11 s after the group is " +
				"whole again",
		},
		{
			ID: "B11b", Severity: "S2", Title: "Only commits fail", Run: commitsFail,
			Limit: "60 s without an OffsetCommit: fetching stops within the window of each partition, everything is committed afterwards, duplicates 0",
		},
	}
}

// queues are the scenarios C: RabbitMQ's channels, queues and node.
func queues() []Scenario {
	return []Scenario{
		{
			ID: "C1", Severity: "S1", CI: true, Title: "Queue deleted and declared again", Run: queueSurgery,
			Limit: "10 deletions under 2 consumers: they say so, consume again without a restart, once each; lost 0, duplicates 0",
		},
		{
			ID: "C4", Severity: "S3", Title: "Declarations that the broker refuses", Run: refused,
			Limit: "406, 403, 405 and 404: the reason names queue, argument, wanted and found value, <= 10 attempts in a minute, pipelines beside go on, it consumes " +
				"once it is mended at the broker, without a restart",
		},
		{
			ID: "C5", Severity: "S2", Title: "The broker is short of memory", Run: blocked,
			Limit: "60 s of connection.blocked while consuming and dead-lettering: acknowledged at >= 95 % of the rate before, no message settled whose dead letter " +
				"is not confirmed, the health gives the broker's reason",
		},
		{
			ID: "C6", Severity: "S2", Title: "Acknowledged too late", Run: acknowledgedLate,
			Limit: "consumer_timeout 5 s, handlers of 20 s on 10 of 2,000 ids: the log names the cause, the slow ids are dead-lettered after at most 5 deliveries, " +
				"the others reach the sink, at most one reconnect in 5 s",
		},
		{
			ID: "C7", Severity: "S1", Title: "SIGKILL of the RabbitMQ node, and a long outage", Run: killRabbitNode,
			Limit: "100 publishers, 5 kills and 120 s down (reconnects wait at most 5 s): nothing confirmed is lost, duplicates <= outages x prefetch of each consumer",
		},
		{
			ID: "C7b", Severity: "S1", Title: "The same with a classic queue", Run: killRabbitNodeClassic,
			Limit: "100 publishers, 5 kills and 120 s down: nothing confirmed is lost, duplicates <= outages x prefetch of each consumer",
		},
	}
}

// network are the scenarios D: links and brokers that are not there.
func network() []Scenario {
	return []Scenario{
		{
			ID: "D0", Severity: "S1", CI: true, Title: "Cut link", Run: cutLink,
			Limit: "10 resets of every connection, on either broker: lost 0, inversions 0, no dead letter, duplicates <= cuts x window or prefetch, none later " +
				"than 11 s after the cut, or after the group is whole again",
		},
		{
			ID: "D1", Severity: "S2", Title: "Black hole, half-open connections", Run: blackHole,
			Limit: "60 s without a byte, both ways or one way, on either broker: connections are given up, lost 0, duplicates <= processes x window or prefetch",
		},
		{
			ID: "D2", Severity: "S2", Title: "Bad link", Run: badLink,
			Limit: "120 s each of connections that live 500-1,500 ms, 300 ms + 64 kB/s, one byte at a time: lost 0, inversions 0, " +
				"duplicates <= 1 % (Kafka), <= connections x prefetch (RabbitMQ)",
		},
		{
			ID: "D3", Severity: "S3", Title: "The broker is absent at the start", Run: absentAtStart,
			Limit: "60 s of a closed port and 60 s of silence, on either broker: the process stays, /healthz 200 and /readyz 503, <= 1 log line/s, then it works; " +
				"with FailFast it ends with a code that is not 0",
		},
		{
			ID: "D4", Severity: "S1", Title: "Corrupted bytes", Run: corruption,
			Limit: "a bit of one byte in each MiB from the broker for 60 s: lost 0, no body but the producer's reaches the sink, no panic " +
				"(RabbitMQ without TLS: where handlers verify what they get)",
		},
	}
}

// downstream are the scenarios E: sinks, disks and dead letters.
func downstream() []Scenario {
	return []Scenario{
		{
			ID: "E2", Severity: "S2", Title: "Sink down", Run: sinkDown,
			Limit: "10 min of Unavailable, on either broker: fetching stops at the bound, memory grows <= 32 MiB, no dead letter, no rebalance or reconnect, " +
				"duplicates 0, everything is handled afterwards",
		},
		{
			ID: "E4", Severity: "S2", Title: "Dead letters over the limit", Run: largeDeadLetters,
			Limit: "messages of 99 % of the limit, and at it; 50 rounds back and forth; an error text of 5 MB: copied whole or as a reference with their hash, " +
				"never tried over 5 times; added headers <= 4 KiB in all, the reason <= 1 KiB, constant over the rounds; lost 0; <= 512 MiB resident",
		},
		{
			ID: "E6", Severity: "S2", Title: "Torn reports, full disk", Run: tornReports,
			Limit: "100 kills while reports and databases are written: they open each time, nothing half is seen, their totals by id are the ledger's; " +
				"a full disk dead-letters nothing and loses nothing",
		},
		{
			ID: "E5", Severity: "S1", CI: true, Title: "Broken batch contract", Run: brokenBatches,
			Limit: "1,000 batches of 100 (10 attempts, as an innocent member may be in several that fail): rejected members and no others are dead-lettered; " +
				"a member named twice or an alien fails all of the batch; inversions 0 (Kafka); lost 0",
		},
	}
}

// malformed are the scenarios F: messages.
func malformed() []Scenario {
	return []Scenario{
		{
			ID: "F1", Severity: "S2", CI: true, Title: "Malformed and hostile records", Run: kafkaCorpus,
			Limit: "1,000 records: each reaches the handler or the dead letters, byte-equal in key, value and headers, nil told from empty; no panic (limits raised); " +
				"at default limits, what is over one becomes a reference with the sum of its payload",
		},
		{
			ID: "F2", Severity: "S2", Title: "Records of 10 MB where 1 MB is fetched", Run: largeRecords,
			Limit: "delivered; over the message limit: a reference among the dead letters; over the largest batch: the partition stops and says so, the others go on, " +
				"and nothing is lost once the limit is raised; nothing is skipped",
		},
		{
			ID: "F4", Severity: "S2", CI: true, Title: "Malformed and hostile AMQP messages", Run: rabbitCorpus,
			Limit: "500 messages: each reaches the handler or the dead letters, headers equal in value and type; none comes twice; no panic (limits raised); " +
				"at default limits, what is over one becomes a reference with the sum of its payload",
		},
	}
}

// credentials are the scenarios G: configurations, logins and TLS.
func credentials() []Scenario {
	return []Scenario{
		{
			ID: "G1", Severity: "S2", CI: true, Title: "Broken files of pipelines", Run: brokenFiles,
			Limit: "50 files and more, each in a process of its own: exit code 2, within 1 s by itself; the message names file, line and key and no secret; " +
				"memory <= 64 MiB; no broker is contacted",
		},
		{
			ID: "G2", Severity: "S3", Title: "Wrong and revoked credentials", Run: credentialsFail,
			Limit: "wrong password at the start, changed under load, permission removed, no such virtual host: the reason names user and what is refused, no password in " +
				"a log, about 6 attempts in a minute, work goes on after repair, lost 0",
		},
		{
			ID: "G3", Severity: "S1", CI: true, Title: "Wrong TLS", Run: wrongTLS,
			Limit: "9 cases, consumers and publishers of both brokers: refused, no byte of a password before a handshake was completed, none in a log; " +
				"verifying nobody is warned of at each start",
		},
	}
}

// machine are the scenarios H: clocks, descriptors, memory, time.
func machine() []Scenario {
	return []Scenario{
		{
			ID: "H1", Severity: "S2", Title: "Wall clock off by hours and days", Run: wallClock,
			Limit: "the clock that stamps dead letters and their records jumps by up to a day, both ways: each rejected message is dead-lettered once, " +
				"lost 0, duplicates 0 (time-outs: TestNoTimeOutGoesByTheWallClock)",
		},
		{
			ID: "H3a", Severity: "S3", Title: "Soak", Run: soak,
			Limit: "60 min on both brokers at once, a fault every 30 s drawn by the seed: lost 0, commits and acks never ahead, inversions 0, " +
				"memory grows <= 1 MiB in 10 min, goroutines and descriptors within 5",
		},
		{
			ID: "H3b", Severity: "S3", Title: "Starts and stops", Run: bounces,
			Limit: "10 members start and stop 50 times each, side by side, with live brokers: each stop clean (5 s are the aim, and told), no goroutine left, lost 0; " +
				"quorum queues, which count what is handed back: at most one dead letter for each start of a consumer",
		},
		{
			ID: "H2", Severity: "S2", Title: "No descriptors, little memory, a processor that stutters", Run: scarcity,
			Limit: "on either broker: no further descriptor while connections are cut: <= 30 % of a core, goes on afterwards; messages of 1 MiB: <= 256 MiB resident; " +
				"stopped 200 of 400 ms for 60 s; lost 0, duplicates <= window or prefetch",
		},
	}
}

// content are the scenarios J: what messages say.
func content() []Scenario {
	return []Scenario{
		{
			ID: "J3", Severity: "S1", Title: "Hostile content", Run: hostileContent,
			Limit: "100 hostile posts through the news: nothing live in a page, no file outside the site, no connection to what they name, " +
				"each id that is a path refused and counted; no control character in a log",
		},
	}
}

// Find is the scenario of an id.
func Find(id string) (Scenario, bool) {
	all := All()
	at := slices.IndexFunc(all, func(s Scenario) bool { return s.ID == id })
	if at < 0 {
		return Scenario{}, false
	}
	return all[at], true
}
