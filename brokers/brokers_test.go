package brokers_test

import (
	"testing"

	"github.com/gobroadway/gobroadway/brokers"
)

func TestKafkaGivesFreshTopics(t *testing.T) {
	kafka := brokers.Kafka(t)
	topic := kafka.Topic(t, 3)
	kafka.Produce(t, topic, brokers.Record{Partition: 1, Value: []byte("x")})
	t.Log(kafka.EndOffsets(t, topic), kafka.Records(t, topic), kafka.CommittedOffsets(t, kafka.Group(t), topic))
}

func TestRabbitMQGivesFreshQueues(t *testing.T) {
	rabbit := brokers.RabbitMQ(t)
	queue := rabbit.Queue(t, brokers.Quorum())
	rabbit.Publish(t, queue, []byte("a"), []byte("b"))
	t.Log(rabbit.Ready(t, queue))
	t.Log(rabbit.Depth(t, queue))
	t.Log(rabbit.CloseConnections(t))
}
