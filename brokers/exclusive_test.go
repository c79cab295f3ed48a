package brokers_test

import (
	"context"
	"net"
	"slices"
	"strconv"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gobroadway/gobroadway/brokers"
)

func TestAnExclusiveKafkaIsKilledRestartedAndCut(t *testing.T) {
	kafka := brokers.Exclusive(t).Kafka("message.max.bytes=2000000")
	if shared := brokers.Kafka(t); shared.Addr() == kafka.Addr() {
		t.Fatal("the exclusive broker is shared")
	}
	topic := kafka.Topic(t, 1)
	kafka.Produce(t, topic, brokers.Record{Value: make([]byte, 1_500_000)}) // over the default maximum
	ping := func(ctx context.Context, client *kgo.Client) error { return client.Ping(ctx) }
	fails := func() bool { return ask(t, kafka.Addrs(), ping, kgo.RequestRetries(0)) != nil }

	kafka.Kill(t)
	if !fails() {
		t.Error("a killed broker answers")
	}
	kafka.Start(t)
	kafka.Produce(t, topic, brokers.Record{Value: []byte("after the kill")})
	kafka.Restart(t)
	if ends := kafka.EndOffsets(t, topic); !slices.Equal(ends, []int64{2}) {
		t.Errorf("after a kill and a restart the topic ends at %v", ends)
	}

	err := ask(t, kafka.Addrs(), func(ctx context.Context, client *kgo.Client) error {
		if err := client.Ping(ctx); err != nil {
			return err
		}
		kafka.Cut()
		if client.Ping(ctx) == nil {
			t.Error("an open connection survives the cut")
		}
		return nil
	}, kgo.RequestRetries(0))
	if err != nil {
		t.Error(err)
	}
	if !fails() {
		t.Error("a new connection passes the cut")
	}
	kafka.Heal()
	if ends := kafka.EndOffsets(t, topic); !slices.Equal(ends, []int64{2}) {
		t.Errorf("after the cut the topic ends at %v", ends)
	}
}

func TestAnExclusiveRabbitMQIsKilledRestartedAndCut(t *testing.T) {
	rabbit := brokers.Exclusive(t).RabbitMQ("consumer_timeout = 60000")
	queue := rabbit.Queue(t, brokers.Quorum())
	rabbit.Publish(t, queue, []byte("a"))

	rabbit.Kill(t)
	if _, err := amqp.Dial(rabbit.URL()); err == nil {
		t.Error("a killed broker answers")
	}
	rabbit.Start(t)
	rabbit.Publish(t, queue, []byte("b"))
	rabbit.Restart(t)
	if ready, _ := rabbit.Depth(t, queue); ready != 2 {
		t.Errorf("%d messages after a kill and a restart", ready)
	}

	conn, _ := connect(t, rabbit.URL())
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	rabbit.Cut()
	if reason := <-closed; reason == nil {
		t.Error("closed in good order by a cut")
	}
	if _, err := amqp.Dial(rabbit.URL()); err == nil {
		t.Error("a new connection passes the cut")
	}
	rabbit.Heal()
	if ready := rabbit.Ready(t, queue); ready != 2 {
		t.Errorf("%d messages after the cut", ready)
	}
}

// A proxy of the test's own stays in the path: clients are told its address, and only Addr is past it.
func TestAKafkaBehindAProxyTellsItsClientsTheProxy(t *testing.T) {
	front, err := net.Listen("tcp", "127.0.0.1:0") // nothing is carried: it only must be what clients are sent to
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	kafka := brokers.Exclusive(t).KafkaBehind(front.Addr().String())
	topic := kafka.Topic(t, 1) // past the proxy
	advertised := func(bootstrap string) (addr string) {
		err := ask(t, []string{bootstrap}, func(ctx context.Context, client *kgo.Client) error {
			request := kmsg.NewPtrMetadataRequest()
			response, err := request.RequestWith(ctx, client)
			if err == nil {
				addr = net.JoinHostPort(response.Brokers[0].Host, strconv.Itoa(int(response.Brokers[0].Port)))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return addr
	}
	if got := advertised(kafka.Listener()); got != front.Addr().String() {
		t.Errorf("clients of the listener are sent to %s, not to the proxy %s", got, front.Addr())
	}
	if got := advertised(kafka.Addr()); got != kafka.Addr() {
		t.Errorf("clients past the proxy are sent to %s, not to %s", got, kafka.Addr())
	}
	if ends := kafka.EndOffsets(t, topic); !slices.Equal(ends, []int64{0}) {
		t.Errorf("a new topic ends at %v", ends)
	}
}
