package wire

// The layouts of requests and answers. What is read stops where nothing more is wanted, except in what the checker depends on:
// there something left over, or missing, is a frame that was not understood.

func commitRequest(r *reader, e Event) (events []Event) {
	e.Kind = Commit
	e.Group, e.Generation, e.Member = r.text(), r.int32(), r.text()
	if e.Version >= 7 {
		r.text() // the instance
	}
	if e.Version <= 4 {
		r.int64() // retention
	}
	r.topics(&e, 10, func() {
		e.Partition, e.Offset = r.int32(), r.int64()
		if e.LeaderEpoch = -1; e.Version >= 6 {
			e.LeaderEpoch = r.int32()
		}
		e.Metadata = r.text()
		events = append(events, e)
	})
	r.end()
	return events
}

func commitAnswer(r *reader, e Event) (events []Event) {
	e.Kind = CommitAnswer
	if e.Version >= 3 {
		r.int32() // throttled
	}
	r.topics(&e, 10, func() {
		e.Partition, e.Code = r.int32(), int(r.int16())
		events = append(events, e)
	})
	r.end()
	return events
}

// topics reads an array of topics, each with an array of partitions. Topics have ids instead of names since version ids.
func (r *reader) topics(e *Event, ids int16, partition func()) {
	r.items(func() {
		if e.Version >= ids {
			e.TopicID = r.id()
		} else {
			e.Topic = r.text()
		}
		r.items(func() {
			partition()
			r.tags()
		})
		r.tags()
	})
}

// end takes the last tagged fields: nothing may be left.
func (r *reader) end() {
	r.tags()
	if len(r.b) > 0 {
		r.short = true
	}
}

func joinRequest(r *reader, e Event) []Event {
	e.Kind = Join
	e.Group = r.text()
	r.int32() // session time-out
	if e.Version >= 1 {
		r.int32() // rebalance time-out
	}
	e.Member = r.text()
	return []Event{e}
}

func joinAnswer(r *reader, e Event) []Event {
	e.Kind = JoinAnswer
	if e.Version >= 2 {
		r.int32() // throttled
	}
	e.Code, e.Generation = int(r.int16()), r.int32()
	if e.Version >= 7 {
		r.text() // the type of protocol
	}
	r.text() // the protocol
	r.text() // the leader
	if e.Version >= 9 {
		r.take(1) // whether to skip the assignment
	}
	e.Member = r.text()
	return []Event{e}
}

func leaveRequest(r *reader, e Event) (events []Event) {
	e.Kind, e.Group = Leave, r.text()
	if e.Version < 3 {
		e.Member = r.text()
		return []Event{e}
	}
	r.items(func() {
		e.Member = r.text()
		r.text() // the instance
		if e.Version >= 5 {
			r.text() // the reason
		}
		r.tags()
		events = append(events, e)
	})
	return events
}

func leaveAnswer(r *reader, e Event) []Event {
	e.Kind = LeaveAnswer
	if e.Version >= 1 {
		r.int32() // throttled
	}
	e.Code = int(r.int16())
	return []Event{e}
}

func produceRequest(r *reader, e Event) (events []Event) {
	e.Kind = Produce
	r.text()                // the transaction
	e.Code = int(r.int16()) // how many replicas must acknowledge
	r.int32()               // time-out
	r.topics(&e, 13, func() {
		e.Partition = r.int32()
		e.Count = r.records()
		events = append(events, e)
	})
	r.end()
	return events
}

// unanswered says whether a produce request wants no answer. One without records has none to be asked about.
func unanswered(events []Event) bool { return len(events) > 0 && events[0].Code == 0 }

// records counts the records of a partition's batches, without unpacking them. Message sets older than batches, magic 2, count
// as not understood.
func (r *reader) records() (n int) {
	set := reader{b: r.bytes()}
	for len(set.b) > 0 && !set.short {
		set.int64() // base offset
		batch := reader{b: set.take(int(set.int32()))}
		batch.int32() // leader epoch
		if magic := batch.take(1); magic == nil || magic[0] != 2 {
			r.take(-1)
		}
		batch.take(4 + 2 + 4 + 8 + 8 + 8 + 2 + 4) // checksum to base sequence
		n += int(batch.int32())
		if batch.short {
			r.take(-1)
			return 0
		}
	}
	if set.short {
		r.take(-1)
	}
	return n
}

func produceAnswer(r *reader, e Event) (events []Event) {
	e.Kind = ProduceAnswer
	r.topics(&e, 13, func() {
		e.Partition, e.Code, e.Offset = r.int32(), int(r.int16()), r.int64()
		r.int64() // append time
		if e.Version >= 5 {
			r.int64() // log start
		}
		if e.Version >= 8 {
			r.items(func() {
				r.int32() // a record that was refused
				r.text()  // why
				r.tags()
			})
			r.text() // why all of it
		}
		events = append(events, e)
	})
	r.int32() // throttled
	r.end()
	return events
}
