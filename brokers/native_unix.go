//go:build unix

package brokers

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// nativeKafka joins or starts this user's Kafka.
func nativeKafka(t testing.TB) *KafkaBroker {
	t.Helper()
	h, l := openKafka(t)
	in := useShared(t, h, l)
	return &KafkaBroker{addrs: []string{in.state.addr("plain")}, origin: "native " + KafkaVersion + ", shared", dir: in.dir, state: in.state}
}

// openKafka finds what a native Kafka needs.
func openKafka(t testing.TB) (house, kafkaLauncher) {
	t.Helper()
	h := mustOpenHouse(t)
	java, err := findJava()
	if err != nil {
		t.Fatalf("brokers: %v", err)
	}
	ctx, cancel := startContext(t)
	defer cancel()
	classpath, err := h.kafkaClasspath(ctx)
	if err != nil {
		t.Fatalf("brokers: %v", err)
	}
	return h, kafkaLauncher{java: java, classpath: classpath}
}

// kafkaClasspath resolves Kafka's jars, once per user and version: the answer is kept in the user's cache directory, for as long
// as every jar of it exists.
func (h house) kafkaClasspath(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = h.root // no home directory: the answer then lives as long as the temporary directory
	}
	dir := filepath.Join(cache, "gobroadway", "kafka-"+KafkaVersion)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	unlock, err := h.lock("classpath")
	if err != nil {
		return "", err
	}
	defer unlock()
	file := filepath.Join(dir, "classpath")
	if classpath, err := readClasspath(file); err == nil {
		return classpath, nil
	}
	if err := resolveClasspath(ctx, dir, file); err != nil {
		return "", err
	}
	return readClasspath(file)
}

// nativeRabbitMQ joins or starts this user's RabbitMQ, with a virtual host for t alone.
func nativeRabbitMQ(t testing.TB) *RabbitMQBroker {
	t.Helper()
	h, l := openRabbitMQ(t)
	in := useShared(t, h, l)
	broker := &RabbitMQBroker{origin: "native " + l.version + ", shared", dir: in.dir, state: in.state, launcher: l}
	broker.ownVhost(t, in.state.addr("amqp"))
	return broker
}

// openRabbitMQ finds what a native RabbitMQ needs.
func openRabbitMQ(t testing.TB) (house, rabbitLauncher) {
	t.Helper()
	l, err := findRabbit()
	if err != nil {
		t.Fatalf("brokers: %v", err)
	}
	return mustOpenHouse(t), l
}

func mustOpenHouse(t testing.TB) house {
	t.Helper()
	h, err := openHouse()
	if err != nil {
		t.Fatalf("brokers: %v", err)
	}
	return h
}

// useShared holds the shared instance until t ends.
func useShared(t testing.TB, h house, l launcher) *instance {
	t.Helper()
	ctx, cancel := startContext(t)
	defer cancel()
	in, err := h.share(ctx, l)
	if err != nil {
		t.Fatalf("brokers: %v", err)
	}
	t.Cleanup(func() {
		if err := in.leave(); err != nil {
			t.Logf("brokers: leave %s: %v", in.dir, err)
		}
	})
	reportLog(t, l.kind(), in.dir)
	return in
}

// ownKafka starts a Kafka behind a proxy.
func ownKafka(t testing.TB, properties []string) OwnKafka {
	t.Helper()
	h, l := openKafka(t)
	link := mustProxy(t)
	l.exclusive, l.properties, l.advertise = true, properties, link.addr()
	control := own(t, h, l, link)
	link.start(t, control.in.state.addr("plain"))
	broker := &KafkaBroker{
		addrs: []string{link.addr()}, origin: "native " + KafkaVersion + ", exclusive", dir: control.in.dir, state: control.in.state,
	}
	t.Logf("kafka: %s", broker)
	return OwnKafka{broker, control}
}

// ownKafkaBehind starts a Kafka behind two proxies: one of the test's own, which clients are told, and behind it the harness's.
func ownKafkaBehind(t testing.TB, front string, properties []string) OwnKafka {
	t.Helper()
	h, l := openKafka(t)
	link := mustProxy(t)
	l.exclusive, l.properties, l.advertise = true, properties, front
	control := own(t, h, l, link)
	link.start(t, control.in.state.addr("plain"))
	broker := &KafkaBroker{
		addrs: []string{control.in.state.addr("internal")}, origin: "native " + KafkaVersion + ", exclusive", dir: control.in.dir, state: control.in.state,
	}
	t.Logf("kafka: %s", broker)
	return OwnKafka{broker, control}
}

// ownRabbitMQ starts a RabbitMQ behind a proxy.
func ownRabbitMQ(t testing.TB, lines []string) OwnRabbitMQ {
	t.Helper()
	h, l := openRabbitMQ(t)
	l.exclusive, l.lines = true, lines
	link := mustProxy(t)
	control := own(t, h, l, link)
	link.start(t, control.in.state.addr("amqp"))
	broker := &RabbitMQBroker{origin: "native " + l.version + ", exclusive", dir: control.in.dir, state: control.in.state, launcher: l}
	broker.ownVhost(t, link.addr())
	t.Logf("rabbitmq: %s", broker)
	return OwnRabbitMQ{broker, control}
}

func mustProxy(t testing.TB) *proxy {
	t.Helper()
	link, err := newProxy()
	if err != nil {
		t.Fatalf("brokers: %v", err)
	}
	return link
}

// own starts an instance that nobody joins and that is gone when t has ended.
func own(t testing.TB, h house, l launcher, link *proxy) *Control {
	t.Helper()
	ctx, cancel := startContext(t)
	defer cancel()
	in, err := h.createLocked(l)
	if err != nil {
		t.Fatalf("brokers: %v", err)
	}
	control := &Control{in: in, launcher: l, link: link}
	t.Cleanup(func() {
		if err := control.in.finish(); err != nil {
			t.Logf("brokers: %s: %v", in.dir, err)
		}
	})
	reportLog(t, l.kind(), in.dir)
	if err := control.start(ctx); err != nil {
		t.Fatalf("brokers: %v", err)
	}
	return control
}
