package broadway

import (
	"cmp"
	"slices"
	"time"
)

// blockedKey is a key whose member is tried again: trial is that attempt, and
// aside is what waits for it, in order of arrival.
type blockedKey struct {
	trial *Message
	aside []*Message
}

// resolve blocks the keys of members that are tried again, parks their first,
// and frees those of trials that are over.
func (b *batcher) resolve(r report) {
	trials := map[uint64]bool{}
	for _, again := range r.retries {
		key := again.message.lane
		if trials[key] {
			b.p.parker.vacate(again)
			b.blocked[key].aside = append(b.blocked[key].aside, again.message)
			continue
		}
		trials[key] = true
		if k := b.blocked[key]; k != nil {
			k.trial = again.message
		} else {
			b.blocked[key] = &blockedKey{trial: again.message}
		}
		b.p.parker.park(again)
	}
	for key := range trials {
		b.setAside(key, r.batch.id.shard)
	}
	for _, t := range r.batch.trials {
		if k := b.blocked[t.key]; k != nil && k.trial == t.message {
			b.free(t.key)
		}
	}
}

// trial is a member of a batch that is tried again. Its key is known beside it, since
// nobody may read a message that has settled.
type trial struct {
	key     uint64
	message *Message
}

// tried are the members that are tried again.
func (o *openBatch) tried() (trials []trial) {
	for _, m := range o.Messages {
		if m.retry {
			trials = append(trials, trial{key: m.lane, message: m})
		}
	}
	return trials
}

// setAside takes the messages of key out of the batches of its shard that have
// not been handed out: the member that failed comes before them.
func (b *batcher) setAside(key uint64, shard int) {
	k := b.blocked[key]
	for _, o := range b.ready[shard] {
		k.aside = o.strip(k.aside, of(key))
	}
	for id, o := range b.open {
		if id.shard == shard {
			k.aside = o.strip(k.aside, of(key))
		}
	}
	slices.SortStableFunc(k.aside, func(x, y *Message) int { return cmp.Compare(x.arrival, y.arrival) })
}

// of picks the messages of key.
func of(key uint64) func(*Message) bool { return func(m *Message) bool { return m.lane == key } }

// free lets what was set aside for key take its place again.
func (b *batcher) free(key uint64) {
	k := b.blocked[key]
	delete(b.blocked, key)
	now := time.Now()
	for _, m := range k.aside {
		b.take(m, now)
	}
}
