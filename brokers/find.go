package brokers

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

// skipShort skips a test that needs a broker under -short, and only then.
func skipShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a broker, and -short runs without")
	}
}

// source is the value of BROADWAY_BROKERS.
func source(t testing.TB) string {
	t.Helper()
	switch chosen := os.Getenv("BROADWAY_BROKERS"); chosen {
	case "":
		return "native"
	case "native", "docker", "embedded":
		return chosen
	default:
		t.Fatalf("brokers: BROADWAY_BROKERS is %q: it may be native, docker or embedded", chosen)
		return ""
	}
}

// findKafka decides where Kafka comes from.
func findKafka(t testing.TB) *KafkaBroker {
	t.Helper()
	if given := os.Getenv("BROADWAY_KAFKA"); given != "" {
		return &KafkaBroker{addrs: strings.Split(given, ","), origin: "BROADWAY_KAFKA"}
	}
	switch source(t) {
	case "docker":
		return dockerKafka(t)
	case "embedded":
		return newEmbedded(t)
	}
	return nativeKafka(t)
}

// findRabbitMQ decides where RabbitMQ comes from.
func findRabbitMQ(t testing.TB) *RabbitMQBroker {
	t.Helper()
	if given := os.Getenv("BROADWAY_RABBITMQ"); given != "" {
		return &RabbitMQBroker{url: given, origin: "BROADWAY_RABBITMQ"}
	}
	switch source(t) {
	case "docker":
		return dockerRabbitMQ(t)
	case "embedded":
		t.Fatal("brokers: RabbitMQ has no embedded stand-in: set BROADWAY_RABBITMQ, or BROADWAY_BROKERS to native or docker")
	}
	return nativeRabbitMQ(t)
}

// startContext bounds a start: by what it may take, by the time that a first download needs, and by the end of the test.
func startContext(t testing.TB) (context.Context, context.CancelFunc) {
	deadline := time.Now().Add(8 * time.Minute)
	if test, ok := t.(interface{ Deadline() (time.Time, bool) }); ok {
		if end, limited := test.Deadline(); limited && end.Add(-5*time.Second).Before(deadline) {
			deadline = end.Add(-5 * time.Second)
		}
	}
	return context.WithDeadline(context.Background(), deadline)
}

// reportLog prints, when t has failed, what a native broker logged since this was called.
func reportLog(t testing.TB, name, dir string) {
	from := logSize(dir)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of what %s logged meanwhile:\n%s", name, logTail(dir, from))
		}
	})
}

// UnsecuredToken returns an OAUTHBEARER token without a signature, valid for an hour, which [KafkaBroker.SASL]'s listener accepts
// for the subject that it names.
func UnsecuredToken(subject string) string {
	now := time.Now()
	claims := map[string]any{"sub": subject, "iat": now.Add(-time.Minute).Unix(), "exp": now.Add(time.Hour).Unix()}
	text, err := json.Marshal(claims)
	if err != nil {
		panic(err) // strings and integers always marshal
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"none"}`)) + "." + encode(text) + "."
}
