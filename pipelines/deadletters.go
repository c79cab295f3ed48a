package pipelines

import (
	"context"

	"github.com/gobroadway/gobroadway/broadway"
)

// deadLetters publishes copies of messages.
type deadLetters struct{ publisher broadway.Publisher }

// DeadLetter implements broadway.DeadLetterer.
func (d deadLetters) DeadLetter(ctx context.Context, messages []*broadway.Message) error {
	records := make([]broadway.Record, len(messages))
	for i, m := range messages {
		records[i] = broadway.Record{Payload: m.Payload, ID: m.ID()}
		if e, ok := m.Metadata.(broadway.Enveloped); ok {
			records[i].Key, records[i].Headers = e.MessageKey(), e.MessageHeaders()
		}
	}
	return d.publisher.Publish(ctx, records...)
}
