package broadway

import "context"

// Processor handles one message. It may set the message's Value, Batcher,
// BatchKey and BatchMode. An error fails the message; see Reject, Retry and
// Unavailable for what it may advise. A panic fails the message too.
//
// ctx ends when the stage's Timeout has passed or the drain's deadline has come.
type Processor func(ctx context.Context, m *Message) error
