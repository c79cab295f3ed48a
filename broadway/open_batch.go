package broadway

import "time"

type batchID struct {
	key   string
	shard int
}

// openBatch is a batch that fills, waits for a reporter, or is being reported.
type openBatch struct {
	Batch
	id       batchID
	state    BatchState
	deadline time.Time
	index    int  // in deadlines, -1 when not there
	trial    bool // decides whether the circuit closes

	run    handling
	before []written // the members when it was handed out, with RetryStuck
	view   Batch     // what the Reporter sees: it may reorder or cut its slice
	trials []trial   // with order, when it was handed out
}

// roomyBatch is a batch together with room for as many members as are the default, and
// for the reporter's view of them: they are allocated at once.
type roomyBatch struct {
	openBatch
	room [2 * roomy]*Message
}

const roomy = 104

// room is a batch with room for as many messages as there will likely be.
func (b *batcher) room() *openBatch {
	n := min(b.likely, 1024)
	if n <= roomy && n > roomy/2 {
		r := new(roomyBatch)
		r.Messages, r.view.Messages = r.room[:0:roomy], r.room[roomy:roomy]
		return &r.openBatch
	}
	o, room := new(openBatch), make([]*Message, 2*n)
	o.Messages, o.view.Messages = room[:0:n], room[n:n]
	return o
}

// see is what the reporter sees.
func (o *openBatch) see() *Batch {
	messages := append(o.view.Messages[:0], o.Messages...)
	o.view = o.Batch
	o.view.Messages = messages
	return &o.view
}

// strip moves the members that pick chooses to the end of aside.
func (o *openBatch) strip(aside []*Message, pick func(*Message) bool) []*Message {
	kept := o.Messages[:0]
	for _, m := range o.Messages {
		if pick(m) {
			aside = append(aside, m)
			o.Bytes -= m.size
		} else {
			kept = append(kept, m)
		}
	}
	clear(o.Messages[len(kept):])
	o.Messages = kept
	return aside
}

// deadlines is a heap of open batches by deadline.
type deadlines []*openBatch

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].deadline.Before(d[j].deadline) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}
func (d *deadlines) Push(x any) {
	o := x.(*openBatch)
	o.index = len(*d)
	*d = append(*d, o)
}
func (d *deadlines) Pop() any {
	old := *d
	o := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	o.index = -1
	return o
}
