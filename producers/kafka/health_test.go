package kafka_test

import (
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gobroadway/gobroadway/producers/kafka"
)

// TestARebalanceIsNoIllness: a readiness probe must not flap when members come and
// go.
func TestARebalanceIsNoIllness(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(4, "t"))
	f.produce(t, "t", "m", 0, 40, 4)
	source, out := kafka.NewProducer(f.config(t, "t")), newSink()
	r := run(t, pipeline(source, out))
	eventually(t, "all", out.has(40))
	eventually(t, "healthy", healthy(source))
	var ill error
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for !isClosed(stop) && ill == nil {
			ill = source.Health()
			<-time.After(time.Millisecond)
		}
	})
	for range 3 {
		guest := kafka.NewProducer(f.config(t, "t"))
		before := source.Stats().Generations
		g := run(t, pipeline(guest, out))
		eventually(t, "the guest is in", healthy(guest))
		g.stop(t)
		eventually(t, "it is alone again", func() error {
			if n := source.Stats().Generations; n < before+2 {
				return errBad
			}
			return nil
		})
	}
	close(stop)
	watching.Wait()
	if ill != nil {
		t.Errorf("during a rebalance: %v", ill)
	}
	r.stop(t)
}

// TestAMemberThatCannotJoinIsIll: also one that was in before.
func TestAMemberThatCannotJoinIsIll(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(1, "t"))
	source := kafka.NewProducer(f.config(t, "t"))
	r := run(t, pipeline(source, newSink()))
	eventually(t, "healthy", healthy(source))
	joins := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Err: kerr.GroupAuthorizationFailed, Count: -1})
	f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.RebalanceInProgress})
	eventually(t, "ill", unhealthy(source, "joining group g"))
	joins.Remove()
	eventually(t, "healthy again", healthy(source))
	r.stop(t)
}
