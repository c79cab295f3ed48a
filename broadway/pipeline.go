package broadway

import (
	"context"
	"errors"
)

type chunk struct{}

type retryStage uint8

// Pipeline is a Config that was found valid, and can run once.
type Pipeline struct{ cfg Config }

// New checks the whole of cfg and reports all mistakes at once. It dials
// nothing and starts no goroutine.
func New(cfg Config) (*Pipeline, error) { return nil, errors.New("not there yet") }

// Run connects, runs the pipeline, and returns when it has drained: after ctx
// has ended, every source is done, or a failure stopped it. Nil is a clean
// drain. Cancelling ctx stops fetching only; what was fetched is finished
// within Config.DrainTimeout.
func (p *Pipeline) Run(ctx context.Context) error { return nil }

// Abort stops at once and settles nothing more. Run returns ErrAborted.
func (p *Pipeline) Abort() {}

// Pause stops fetching. Queued work is finished, open batches are flushed,
// connections and group memberships stay.
func (p *Pipeline) Pause(ctx context.Context) error { return nil }

// Resume fetches again.
func (p *Pipeline) Resume(ctx context.Context) error { return nil }

// Topology lists the stages in the order in which messages pass them.
func (p *Pipeline) Topology() []Stage { return nil }

// Stats is a picture of the pipeline as it is now.
func (p *Pipeline) Stats() Stats { return Stats{} }
