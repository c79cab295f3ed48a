package acknowledgers

import (
	"context"

	"github.com/gobroadway/gobroadway/broadway"
)

// Noop is the [broadway.Acknowledger] of sources that keep nothing: it accepts
// every outcome and tells nobody.
type Noop struct{}

var _ broadway.Acknowledger = Noop{}

// Ack returns nil.
func (Noop) Ack(context.Context, *broadway.AckRef, []*broadway.Message, []*broadway.Message) error {
	return nil
}
