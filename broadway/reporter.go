package broadway

import "context"

// Reporter handles one batch. Nil means that every member succeeded; a
// *BatchError fails the members that it names; any other error, or a panic,
// fails all. Members are acknowledged only after it has returned.
//
// ctx ends when the batcher's ReportTimeout has passed or the drain's deadline
// has come.
type Reporter func(ctx context.Context, b *Batch) error
