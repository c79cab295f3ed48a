package bugs

import (
	"fmt"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// broken is a consumer with a mistake, and the counters of which one must flag it.
type broken struct {
	name    string
	run     func(*stage)
	flagged check.Counter
	// also are further counters that the mistake moves.
	also []check.Counter
}

func brokenOnKafka() []broken {
	return []broken{
		{"commit highest offset", commitHighest, check.CommitAhead, []check.Counter{check.Inversions}},
		{"commit by old generation", commitByOldGeneration, check.CommitRegress, nil},
		{"drop half batch on revoke", dropHalfBatchOnRevoke, check.Lost, []check.Counter{check.CommitAhead, check.SamplesAhead, check.SkipUntold}},
		{"ignore a failed member", ignoreFailedMember, check.Lost, []check.Counter{check.CommitAhead, check.SamplesAhead, check.SkipUntold}},
		{"skip on OffsetOutOfRange", skipOnOutOfRange, check.SkipUntold, nil},
		{"reorder within key on retry", reorderOnRetry, check.Inversions, nil},
		{"nil becomes empty", nilBecomesEmpty, check.Corrupt, nil},
		{"kafka-go's Reader, committing out of order", readerOutOfOrder, check.CommitAhead, []check.Counter{check.Inversions, check.CommitRegress, check.EndState}},
	}
}

func brokenOnRabbitMQ() []broken {
	return []broken{
		{"ack before sink", ackBeforeSink, check.AckAhead, nil},
		{"ack with reused tag", ackWithReusedTag, check.AckAhead, nil},
		{"settle before the dead letter is confirmed", settleBeforeDeadLetter, check.SettledUnsaved, []check.Counter{check.AckAhead}},
		{"treat closed channel as message", closedChannelAsMessage, check.Phantom, nil},
		{"dedup before success", dedupBeforeSuccess, check.Lost, []check.Counter{check.AckAhead}},
		{"amqp091's Recovery", recoveryConsumer, check.StaleAck, []check.Counter{check.EndState}},
	}
}

// clean is how many runs without a mistake there are, on each broker.
const clean = 10

func TestTheCheckerFlagsBrokenConsumersOfKafka(t *testing.T) {
	host := newHost(t)
	kafka, err := rig.StartKafka(host)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range brokenOnKafka() {
		t.Run(b.name, func(t *testing.T) {
			n := messages
			if b.flagged == check.Corrupt {
				n = 0
			}
			s := newKafkaStage(t, kafka, fmt.Sprintf("broken-%d", i), n)
			b.run(s)
			b.judge(t, s)
		})
	}
	for i := range clean {
		s := newKafkaStage(t, kafka, fmt.Sprintf("clean-%d", i), messages)
		cleanKafka(s)
		mustPass(t, s)
	}
}

func TestTheCheckerFlagsBrokenConsumersOfRabbitMQ(t *testing.T) {
	host := newHost(t)
	rabbit, err := rig.StartRabbitMQ(host)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range brokenOnRabbitMQ() {
		t.Run(b.name, func(t *testing.T) {
			s := newRabbitStage(t, rabbit, fmt.Sprintf("broken-%d", i))
			b.run(s)
			b.judge(t, s)
		})
	}
	for i := range clean {
		s := newRabbitStage(t, rabbit, fmt.Sprintf("clean-%d", i))
		cleanRabbit(s)
		mustPass(t, s)
	}
}

func newHost(t *testing.T) *brokers.Host {
	t.Helper()
	if testing.Short() {
		t.Skip("needs brokers, and -short runs without")
	}
	host := brokers.NewHost("bugs", t.Logf)
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	return host
}

// judge demands the right counter, and no others than the mistake explains.
func (b broken) judge(t *testing.T, s *stage) {
	t.Helper()
	r := s.judge()
	if r.Counts[b.flagged] == 0 {
		t.Errorf("not flagged by %s: %v", b.flagged, r.Counts)
	}
	for _, c := range r.Broken() {
		if c != b.flagged && !slices.Contains(b.also, c) {
			t.Errorf("a false alarm: %s %d %q", c, r.Counts[c], r.First[c])
		}
	}
	t.Logf("%v", r.Counts)
}

func mustPass(t *testing.T, s *stage) {
	t.Helper()
	r := s.judge()
	if !r.Pass() || r.Observations != messages || r.Commits+r.Acks == 0 {
		t.Errorf("a false alarm in a clean run: %q, %+v", r.Reasons(), r.Counts)
	}
}
