package rig

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/Shopify/toxiproxy/v2/toxics"
)

// The toxics of this package, by their Type.
const (
	// Flip inverts one bit in every "every" bytes, at random places.
	Flip = "flip"
	// Stall keeps everything back, and connections open, until it is removed: one direction of a black hole.
	Stall = "stall"
	// Life ends each connection "min" to "max" milliseconds after its first byte.
	Life = "life"
	// Crumble sends every byte by itself.
	Crumble = "crumble"
	// DropCommits drops every OffsetCommit request of Kafka, which so is never answered. Upstream only.
	DropCommits = "dropcommits"
)

// registerToxics tells toxiproxy of them. Doing so again does nothing.
func registerToxics() {
	toxics.Register(Flip, new(flip))
	toxics.Register(Stall, new(stall))
	toxics.Register(Life, new(life))
	toxics.Register(Crumble, new(crumble))
	toxics.Register(DropCommits, new(dropCommits))
}

// carry passes each chunk through change until the link ends or the toxic is removed.
func carry(stub *toxics.ToxicStub, change func(*stream.StreamChunk)) {
	for {
		select {
		case <-stub.Interrupt:
			return
		case chunk := <-stub.Input:
			if chunk == nil {
				stub.Close()
				return
			}
			change(chunk)
		}
	}
}

type flip struct {
	Every int    `json:"every"`
	Seed  uint64 `json:"seed"`
	// Least, if set, cuts the stream into Kafka's frames and spoils only those of at least so many bytes: answers to Fetch.
	Least int `json:"least"`
}

type flipState struct {
	random *rand.Rand
	next   int // bytes until the next one that is spoiled
	frames frames
}

// NewState begins at a random place, so that short connections are hit as well.
func (f *flip) NewState() any {
	random := rand.New(rand.NewPCG(f.Seed, rand.Uint64())) // connections differ
	return &flipState{random: random, next: random.IntN(max(1, f.Every))}
}

// spoil inverts a bit of a byte in every f.Every, on average, counted over all calls.
func (f *flip) spoil(state *flipState, data []byte) {
	at := 0
	for state.next < len(data)-at {
		at += state.next
		data[at] ^= 1 << state.random.IntN(8)
		at++
		state.next = f.Every/2 + state.random.IntN(max(1, f.Every))
	}
	state.next -= len(data) - at
}

func (f *flip) Pipe(stub *toxics.ToxicStub) {
	state := stub.State.(*flipState)
	carry(stub, func(chunk *stream.StreamChunk) {
		if f.Least == 0 {
			f.spoil(state, chunk.Data)
			stub.Output <- chunk
			return
		}
		state.frames.rest = append(state.frames.rest, chunk.Data...)
		for frame := state.frames.cut(); frame != nil; frame = state.frames.cut() {
			if len(frame) >= f.Least {
				f.spoil(state, frame)
			}
			stub.Output <- &stream.StreamChunk{Data: frame, Timestamp: chunk.Timestamp}
		}
	})
}

type stall struct{}

func (*stall) Pipe(stub *toxics.ToxicStub) { <-stub.Interrupt }

type life struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

type lifeState struct{ until time.Time }

func (*life) NewState() any { return new(lifeState) }

func (l *life) Pipe(stub *toxics.ToxicStub) {
	state := stub.State.(*lifeState)
	if state.until.IsZero() {
		state.until = time.Now().Add(time.Duration(l.Min+rand.IntN(max(1, l.Max-l.Min))) * time.Millisecond)
	}
	end := time.NewTimer(time.Until(state.until))
	defer end.Stop()
	for {
		select {
		case <-stub.Interrupt:
			return
		case <-end.C:
			stub.Close()
			for range stub.Input { // whoever writes to it would wait for ever otherwise
			}
			return
		case chunk := <-stub.Input:
			if chunk == nil {
				stub.Close()
				return
			}
			stub.Output <- chunk
		}
	}
}

type crumble struct{}

func (*crumble) Pipe(stub *toxics.ToxicStub) {
	carry(stub, func(chunk *stream.StreamChunk) {
		for i := range chunk.Data {
			stub.Output <- &stream.StreamChunk{Data: chunk.Data[i : i+1], Timestamp: chunk.Timestamp}
		}
	})
}

type dropCommits struct{}

// frames cuts a stream of Kafka requests, or answers, into frames. It is only right from the first byte of a connection on, or between two
// of them: which is where a client that waits for its answers stands when a toxic is added.
type frames struct{ rest []byte }

func (*dropCommits) NewState() any { return new(frames) }

func (*dropCommits) Pipe(stub *toxics.ToxicStub) {
	const offsetCommit = 8
	state := stub.State.(*frames)
	carry(stub, func(chunk *stream.StreamChunk) {
		state.rest = append(state.rest, chunk.Data...)
		for {
			frame := state.cut()
			if frame == nil {
				return
			}
			if binary.BigEndian.Uint16(frame[4:]) != offsetCommit {
				stub.Output <- &stream.StreamChunk{Data: frame, Timestamp: chunk.Timestamp}
			}
		}
	})
}

// cut takes the first whole frame, or returns nil.
func (f *frames) cut() []byte {
	if len(f.rest) < 6 {
		return nil
	}
	size := 4 + int(binary.BigEndian.Uint32(f.rest))
	if len(f.rest) < size {
		return nil
	}
	frame := f.rest[:size:size]
	f.rest = append([]byte(nil), f.rest[size:]...)
	return frame
}
