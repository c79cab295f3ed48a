package watermill

import (
	"context"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// filled has messages from the first on; a subscriber gets all of them.
func filled(t *testing.T, n int) *gochannel.GoChannel {
	t.Helper()
	pubsub := gochannel.NewGoChannel(gochannel.Config{Persistent: true}, watermill.NopLogger{})
	for i := range n {
		if err := pubsub.Publish("t", message.NewMessage("", measure.Slab(i, 1))); err != nil {
			t.Fatal(err)
		}
	}
	return pubsub
}

func TestDrainAndRouteHandleAllOnce(t *testing.T) {
	for name, run := range map[string]func(context.Context, measure.Input, message.Subscriber) (measure.Output, error){
		"drain": func(ctx context.Context, in measure.Input, from message.Subscriber) (measure.Output, error) {
			return Drain(ctx, in, from, "t", 1)
		},
		"route": func(ctx context.Context, in measure.Input, from message.Subscriber) (measure.Output, error) {
			return Route(ctx, in, from, "t", 0)
		},
	} {
		for _, n := range []int{1, lateMessages, lateMessages + 500} {
			in := measure.Input{Messages: n}
			out, err := run(t.Context(), in, filled(t, n))
			if err != nil || out.Messages != n || out.Sum != measure.WantSum(n) {
				t.Errorf("%s of %d: %+v, %v", name, n, out, err)
			}
		}
	}
}

func TestRouteEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if out, err := Route(ctx, measure.Input{Messages: 2}, filled(t, 1), "t", 0); err == nil && out.Messages == 2 {
		t.Errorf("of one message: %+v", out)
	}
}
