package report

// constant is a figure that was not measured in the run that the page is of.
type constant struct{ Beside, What, Rate, Notes string }

// elixir is what Elixir's Broadway reached, measured once, on 2026-11-23, on a machine of the same size: two cores, brokers and clients
// on them, messages of 200 bytes. Broadway 1.3.0 and GenStage 1.3.2 on OTP 25, Kafka 4.3.1, RabbitMQ 3.10.8; medians of quiet runs. They
// are constants because OTP is not part of what a run of this module needs.
func elixir() []constant {
	return []constant{
		{"stages", "GenStage, producer to consumer, max_demand 1000", "24.1 M", "lists of integers"},
		{"stages", "GenStage, producer to consumer, max_demand 10", "2.8 M", "lists of integers"},
		{"stages", "GenStage, three stages, max_demand 1000", "13.1 M", "lists of integers"},
		{"stages", "GenStage, three stages, max_demand 10", "1.06 M", "lists of integers"},
		{"inprocess", "Broadway, 2 processors, batches of 100, max_demand 100", "0.73 M", "counting acknowledgements"},
		{"inprocess", "Broadway, 2 processors, batches of 100, max_demand 10", "0.49 M", "counting acknowledgements; 0.61 M without counting"},
		{"inprocess", "Broadway, no batcher, max_demand 100", "1.0 M", ""},
		{"inprocess", "Broadway, no batcher, max_demand 10", "0.73 M", ""},
		{"latency-inprocess", "Broadway, no batcher, 10,000 a second", "-", "p50 0.058 ms, p99 0.136 ms, from emitted to acknowledged"},
		{"kafka", "broadway_kafka, best tuning, no batcher", "123,000 to 140,000", "1,000,000 messages, 8 partitions; 7 to 10 us of CPU a message"},
		{"kafka", "broadway_kafka, best tuning, batches of 100", "83,000 to 99,000", "1,000,000 messages, 8 partitions"},
		{"kafka", "broadway_kafka, defaults, no batcher", "9,000", "an empty partition blocks the others for max_wait"},
		{"kafka", "broadway_kafka, defaults, batches of 100", "61,000", ""},
		{"rabbitmq", "broadway_rabbitmq, 10 processors, prefetch 500, no batcher", "19,500", "200,000 persistent messages, classic durable queue"},
		{"rabbitmq", "broadway_rabbitmq, 10 processors, prefetch 500, batches of 100", "17,700 to 18,800", "one and two producers"},
		{"rabbitmq", "broadway_rabbitmq, default prefetch of 50, batches of 100", "46", "a batch can never fill"},
		{"slow-50-8", "broadway_kafka, 50 processors, sleeps of 2 ms", "3,985", "one message of a partition at a time"},
	}
}
