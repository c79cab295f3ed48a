package rabbitmq

import (
	"context"
	"errors"
	"testing"
)

// Who has a job whose time is over may see first that the writer is done with it,
// which has written nothing then: the reason is the same.
func TestAJobThatNobodyWroteSaysWhy(t *testing.T) {
	cause := errors.New("the drain is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	over := make(chan struct{})
	close(over)
	o := &outlet{over: over}
	late := newJob(ctx, 2)
	o.writeJob(late)
	o.conclude(ctx, late)
	if err := late.result(); !errors.Is(err, ErrUnconfirmed) || !errors.Is(err, cause) {
		t.Errorf("a job whose time was over: %v", err)
	}

	lost := newJob(t.Context(), 1)
	o.refusal = errors.New("told by the broker")
	o.dismiss(lost)
	o.conclude(t.Context(), lost)
	if err := lost.result(); !errors.Is(err, ErrUnconfirmed) || !errors.Is(err, o.refusal) {
		t.Errorf("a job that no writer took: %v", err)
	}
}
