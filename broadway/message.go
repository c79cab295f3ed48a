package broadway

import (
	"fmt"
	"sync/atomic"
)

// BatchMode says whether a message may wait for its batch to fill.
type BatchMode uint8

const (
	// Bulk lets the message wait until its batch closes by size, bytes, age or
	// policy. It is the default.
	Bulk BatchMode = iota
	// Flush closes the batch with this message in it, at once.
	Flush
)

// Header is one header of a message or record. A nil Value is not an empty one.
type Header struct {
	Key   string
	Value []byte
}

// Identifier is an optional interface of source metadata: the stable id of a
// message at its source, such as "topic/partition/offset".
type Identifier interface{ MessageID() string }

// Enveloped is an optional interface of source metadata: what a copy of the
// message (a dead letter, a replay) must carry besides the payload.
type Enveloped interface {
	// MessageOrigin names where the message came from: a topic or a queue.
	MessageOrigin() string
	// MessageKey is the key, nil when there is none.
	MessageKey() []byte
	// MessageHeaders are the headers, in their order at the source.
	MessageHeaders() []Header
}

// Message is one unit of work. It is owned by whoever holds it: the producer
// until Fetch returns it, then one handler at a time. Handlers may write Value,
// Batcher, BatchKey and BatchMode; everything else belongs to the pipeline.
//
// A Message must not be copied, and must not be used after its handler (or its
// batch's reporter) has returned.
type Message struct {
	// Payload is what the source delivered: read-only, and valid until the
	// message is settled. Nil is not empty (a Kafka tombstone is nil).
	Payload []byte

	// Fields are in lines of a cache of 64 bytes, by who touches them together.
	ref   *AckRef
	chunk *chunk
	seq   int64
	size  int64
	state uint32 // atomic, once the message was handed out

	// BatchMode is Bulk or Flush.
	BatchMode BatchMode
	// Redelivered says that the source delivered this message before.
	Redelivered bool

	retry    bool // an attempt after the first of its stage
	giveBack bool // a retry that is released instead

	// BatchKey groups messages within a batcher: a batch holds one key only.
	BatchKey string
	// Batcher names the batcher that the message goes to after its processor,
	// "" being DefaultBatcher. An unknown name fails the message.
	Batcher string
	// Attempt counts handlings of the stage that is running, from 1. Attempts
	// that ended with their process count where the source can tell them: see
	// [Producer].
	Attempt int
	lane    uint64 // what PartitionBy says
	err     error

	// Value is whatever handlers make of the payload. It survives a retry of a
	// later stage.
	Value any
	// Metadata is the source's own, typed: *kafka.Metadata, *rabbitmq.Metadata.
	Metadata any

	arrival uint64                  // at its batcher
	next    atomic.Pointer[Message] // within the one queue that holds it
	pins    atomic.Int32            // who looks at it through a handling: see handling.pin
	earlier int16                   // attempts made before this process got it
	stage   uint16                  // that has it: a batcher's place in the pipeline's list and one, or 0 for the pool
	action  Action
	marks   marks
}

// marks are what is seldom asked of a message.
type marks uint8

const (
	begins  marks = 1 << iota // it begins a slab: see BeginSlab
	alone                     // it lies in no array with other Messages
	watched                   // somebody may still read it who has nothing to say any more: see drop
)

// Init makes m the message of seq within ref, with payload. Producers call it
// on the elements of a slab; NewMessage does so for a single message.
//
// seq is the position within ref that the acknowledger settles: a Kafka
// offset, an AMQP delivery tag. It must not repeat within ref.
func (m *Message) Init(ref *AckRef, seq int64, payload []byte) {
	if m.ref != ref { // in memory that is used again it often is; and what is written costs, for pointers
		m.ref = ref
	}
	m.seq, m.Payload = seq, payload
	m.size = int64(len(payload))
	m.Attempt = 1
}

// NewMessage allocates and initialises one message; see [Message.Init].
func NewMessage(ref *AckRef, seq int64, payload []byte) *Message {
	m := new(Message)
	m.Init(ref, seq, payload)
	return m
}

// SetSize tells how many bytes the message weighs against MaxUnsettledBytes
// besides MessageOverhead, for sources whose key and headers count too. The
// default is len(Payload).
func (m *Message) SetSize(bytes int64) { m.size = bytes }

// Size is the weight of the message in bytes; see [Message.SetSize].
func (m *Message) Size() int64 { return m.size }

// Ref is what the message settles within.
func (m *Message) Ref() *AckRef { return m.ref }

// Seq is the position of the message within its Ref.
func (m *Message) Seq() int64 { return m.seq }

// Err is why the message failed: nil until it has. Acknowledgers and dead
// letterers read it.
func (m *Message) Err() error { return m.err }

// Action is what the failure policy decided for a failed message. It is
// meaningful in the failed list of [Acknowledger.Ack] and in a DeadLetterer.
func (m *Message) Action() Action { return m.action }

// Stage is the stage that has the message, or that failed it: "processor", or the
// name of a batcher.
func (m *Message) Stage() string { return m.batcher().stageName() }

// batcher is the stage that has m, or nil for the pool.
func (m *Message) batcher() *batcher {
	if m.stage == 0 {
		return nil
	}
	return m.chunk.source.p.batchers[m.stage-1]
}

// ID is the stable id of the message at its source, where its metadata is an
// [Identifier]; otherwise its position within this process.
func (m *Message) ID() string {
	if id, ok := m.Metadata.(Identifier); ok {
		return id.MessageID()
	}
	return fmt.Sprintf("%p/%d", m.ref, m.seq)
}

// The states of a message. It is open until a worker, or whoever releases it
// unhandled, claims it: with order by its state, without by its place in a block
// (see cursor), so that there it is claimed from the beginning. It is settled by
// whoever moves it out of stateClaimed, and a later settle is a counted no-op.
const (
	stateOpen uint32 = iota
	stateClaimed
	stateSucceeded
	stateFailed
	stateDeadLettered
	stateReleased
)

// claim moves m out of stateOpen, and says whether this call did: a message that
// was released while it waited is not handled.
func (m *Message) claim() bool {
	return atomic.CompareAndSwapUint32(&m.state, stateOpen, stateClaimed)
}

// settle moves m out of stateClaimed and says whether this call did.
func (m *Message) settle(state uint32) bool {
	return atomic.CompareAndSwapUint32(&m.state, stateClaimed, state)
}

// written is what handlers may write.
type written struct {
	value             any
	batcher, batchKey string
	mode              BatchMode
}

func (m *Message) written() written {
	return written{m.Value, m.Batcher, m.BatchKey, m.BatchMode}
}

// again is a fresh Message for the next attempt of m at a stage, claimed: the
// handler of an abandoned attempt may still hold the old one.
func (m *Message) again(attempt int, at *batcher) *Message {
	n := m.copy(m.written())
	n.Attempt, n.retry, n.stage, n.err = attempt, true, at.number(), m.err
	return n
}

// copy is a fresh Message of what m was before its handler wrote to it, claimed. It
// reads nothing that handlers write.
func (m *Message) copy(w written) *Message {
	n := &Message{
		Payload: m.Payload, Value: w.value, Metadata: m.Metadata,
		Batcher: w.batcher, BatchKey: w.batchKey, BatchMode: w.mode,
		Attempt: m.Attempt, Redelivered: m.Redelivered,
		ref: m.ref, chunk: m.chunk, seq: m.seq, size: m.size, lane: m.lane,
		arrival: m.arrival, earlier: m.earlier, retry: m.retry, stage: m.stage, marks: alone,
	}
	n.state = stateClaimed
	return n
}
