package inproc

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// limitChunk is how many messages are asked for at once, and limitChunks how often without an acknowledgement: together what the
// pipeline has unsettled at most.
const (
	limitChunk  = 400
	limitChunks = 3
)

// limitMessage is the least that a message needs.
type limitMessage struct {
	payload []byte
	value   uint64
	memory  *limitMemory
}

// limitMemory is messages that are used again.
type limitMemory struct {
	messages []limitMessage
	settled  int
}

// limitSpan is messages that workers claim one at a time.
type limitSpan struct {
	messages []limitMessage
	next     atomic.Int64
}

// limit is the smallest program that does a pipeline's work: messages made on demand, claimed one at a time by two workers, collected
// into batches of 100, added up and acknowledged, and their memory used again. It has no errors, retries, time-outs, panics, metrics,
// order, second source or batcher.
func limit(_ context.Context, in measure.Input) (measure.Output, error) {
	start := time.Now()
	free, made, finished := make(chan *limitMemory, limitChunks), make(chan *limitSpan, limitChunks), make(chan []*limitMessage, 4)
	for range limitChunks {
		free <- newLimitMemory()
	}
	var all, pool sync.WaitGroup
	all.Go(func() { makeSpans(free, made, in.Messages) })
	line := &limitLine{made: made}
	for range 2 {
		pool.Go(func() { line.work(finished) })
	}
	all.Go(func() { pool.Wait(); close(finished) })
	var out measure.Output
	for batch := range finished {
		for _, m := range batch {
			out.Sum += m.value
			if m.memory.settled++; m.memory.settled == len(m.memory.messages) {
				free <- m.memory
			}
		}
		out.Messages += len(batch)
	}
	all.Wait()
	out.Elapsed = time.Since(start)
	return out, nil
}

func newLimitMemory() *limitMemory {
	memory := &limitMemory{messages: make([]limitMessage, limitChunk)}
	for i := range memory.messages {
		memory.messages[i].memory = memory
	}
	return memory
}

func makeSpans(free <-chan *limitMemory, made chan<- *limitSpan, n int) {
	defer close(made)
	for at := 0; at < n; {
		memory := <-free
		k := min(limitChunk, n-at)
		memory.messages, memory.settled = memory.messages[:k], 0
		for from := 0; from < k; from += slabMessages {
			part := min(slabMessages, k-from)
			slab := measure.Slab(at+from, part)
			for i := range part {
				memory.messages[from+i].payload = slab[i*measure.Payload : (i+1)*measure.Payload]
			}
		}
		at += k
		made <- &limitSpan{messages: memory.messages}
	}
}

// limitLine is what waits for a worker.
type limitLine struct {
	made <-chan *limitSpan

	mu      sync.Mutex // protects following field
	current *limitSpan
}

// after is the span after over, which is used up; nil at the end.
func (l *limitLine) after(over *limitSpan) *limitSpan {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current == over {
		l.current = <-l.made
	}
	return l.current
}

// work reads messages one at a time, and hands them on in batches. What it holds while it waits is handed on first.
func (l *limitLine) work(finished chan<- []*limitMessage) {
	batch := make([]*limitMessage, 0, batchSize)
	for span := l.after(nil); span != nil; span = l.after(span) {
		for i := span.next.Add(1) - 1; i < int64(len(span.messages)); i = span.next.Add(1) - 1 {
			m := &span.messages[i]
			m.value = measure.Read(m.payload)
			if batch = append(batch, m); len(batch) == batchSize {
				finished <- batch
				batch = make([]*limitMessage, 0, batchSize)
			}
		}
		if len(batch) > 0 && len(l.made) == 0 {
			finished <- batch
			batch = make([]*limitMessage, 0, batchSize)
		}
	}
	if len(batch) > 0 {
		finished <- batch
	}
}
