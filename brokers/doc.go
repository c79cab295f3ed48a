// Package brokers gives tests a real Kafka and a real RabbitMQ.
//
//	func TestOrders(t *testing.T) {
//		kafka := brokers.Kafka(t)
//		topic := kafka.Topic(t, 3)
//		...
//	}
//
// # Where a broker comes from
//
// The first of these that applies:
//
//  1. BROADWAY_KAFKA (host:port, or several with commas) and BROADWAY_RABBITMQ (an amqp:// URL): a broker that runs already.
//     It is used as it is and never stopped.
//  2. BROADWAY_BROKERS=docker: the services of this module's docker-compose.yml. They are left running: docker compose down ends them.
//  3. BROADWAY_BROKERS=embedded: Kafka is the in-process stand-in of [Embedded]; RabbitMQ has none, so its tests fail.
//  4. A native start, the default: Kafka's own jars, resolved by Maven and run by the machine's Java (17 or newer), and the
//     machine's RabbitMQ.
//
// Under -short every test that asks for a broker is skipped. Otherwise a broker that cannot be had fails the test, with a
// message that names what to install. A test logs which broker it ran on, and when it fails, what that broker logged meanwhile.
//
// # Programs
//
// A program that is no test gives these functions a [Host].
//
// # Sharing
//
// The packages of one "go test ./..." are processes of their own. They share one native broker of each kind, which is started by
// the first test that asks for it and ended a few seconds after the last one that used it has returned or died, killed ones
// included. So a test must not disturb the broker itself: topics, queues and groups have fresh names, and each call of
// [RabbitMQ] has a virtual host of its own. A test that must stop, kill or cut its broker asks [Exclusive] for one.
//
// Native brokers listen on loopback only, on free ports that are never a default port, with data, logs and secrets in a
// directory of their own, which is removed when they end, within a private one ($TMPDIR/gobroadway-brokers-<uid>, or
// BROADWAY_BROKERS_DIR) of which empty lock files stay. BROADWAY_BROKERS_UNTIL, a process id, keeps the brokers that are started meanwhile until that process is gone: a script that runs several commands sets it to its own.
package brokers
