package rabbitmq_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// The broker closes a channel on which a delivery is not settled within its
// consumer_timeout. What waits behind a slow handler, in the pipeline and in the
// client, is given back before that, and the session lives. Without AckTimeout it is
// lost.
func TestWhatWaitsIsGivenBackBeforeTheBrokerTakesIt(t *testing.T) {
	const limit, slow, n = 6 * time.Second, 1200 * time.Millisecond, 12
	broker := brokers.Exclusive(t).RabbitMQ()
	broker.Evaluate(t, "application:set_env(rabbit, consumer_timeout, 6000), application:set_env(rabbit, channel_tick_interval, 200)")
	for _, tt := range []struct {
		name    string
		timeout time.Duration
		lives   bool
	}{{"with AckTimeout", limit, true}, {"without", -1, false}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			queue := broker.Queue(t, brokers.Quorum())
			publishAll(t, broker.RabbitMQBroker, queue, n)
			producer := rabbitmq.NewProducer(quick(t, rabbitmq.Config{
				URL: broker.URL(), Queue: queue, Prefetch: n, AckTimeout: tt.timeout,
			}))
			handled := make(chan string, 10*n)
			p, err := broadway.New(broadway.Config{
				Producers: []broadway.Producer{producer}, Logger: testLogger(t),
				Processor: broadway.ProcessorConfig{Concurrency: 1, MaxDemand: 4, Handler: func(_ context.Context, m *broadway.Message) error {
					<-time.After(slow) // the work of a handler
					handled <- string(m.Payload)
					return nil
				}},
				Failure: broadway.FailurePolicy{Action: broadway.ActionRequeue, MaxAttempts: 1},
			})
			if err != nil {
				t.Fatal(err)
			}
			ran := make(chan error, 1)
			go func() { ran <- p.Run(t.Context()) }()
			seen := map[string]bool{}
			for len(seen) < 6 {
				select {
				case id := <-handled:
					seen[id] = true
				case <-time.After(patience):
					t.Fatalf("%d were handled; %+v", len(seen), p.Stats())
				}
			}
			sessions, st := producer.Stats(), p.Stats()
			if lives := sessions.Sessions == 1; lives != tt.lives {
				t.Errorf("%+v, recalled %d", sessions, st.Recalled)
			}
			if tt.lives && (st.Recalled == 0 || sessions.Returned == 0) {
				t.Errorf("%d were given back by the pipeline, %d by the client", st.Recalled, sessions.Returned)
			}
			p.Abort()
			if err := <-ran; !errors.Is(err, broadway.ErrAborted) {
				t.Error(err)
			}
		})
	}
}
