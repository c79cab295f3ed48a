package rig

import (
	"sync/atomic"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
)

// Record makes the wire ledger of a scenario in dir: what open returns goes to [Proxy.Tap]. newDecoder is wire.NewKafka or
// wire.NewAMQP. seen, if not nil, is told each event, and who the client is, before the bytes are carried on. Failed counts events that could not be written.
func Record(dir string, newDecoder func(conn int64, emit func(wire.Event)) wire.Decoder, seen func(Conn, wire.Event)) (*Recorder, error) {
	writer, err := ledger.Create(dir, ledger.KindWire)
	if err != nil {
		return nil, err
	}
	return &Recorder{writer: writer, newDecoder: newDecoder, seen: seen}, nil
}

// Recorder writes what crosses a proxy.
type Recorder struct {
	writer     *ledger.Writer
	newDecoder func(conn int64, emit func(wire.Event)) wire.Decoder
	seen       func(Conn, wire.Event)
	failed     atomic.Int64
}

// Open is an [Opener].
func (r *Recorder) Open(conn func() Conn) (Tap, func()) {
	decoder := r.newDecoder(int64(conn().ID), func(event wire.Event) {
		if err := r.writer.Append(event); err != nil {
			r.failed.Add(1)
		}
		if r.seen != nil {
			r.seen(conn(), event)
		}
	})
	tap := func(up bool, data []byte) {
		if up {
			decoder.Client(ledger.Now(), data)
		} else {
			decoder.Server(ledger.Now(), data)
		}
	}
	return tap, func() { decoder.Close(ledger.Now()) }
}

// Failed counts events that could not be written: evidence that is not whole.
func (r *Recorder) Failed() int64 { return r.failed.Load() }

// Close ends the ledger. No connection may be open.
func (r *Recorder) Close() error { return r.writer.Close() }
