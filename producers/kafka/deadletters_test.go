package kafka_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// noLimits lets all messages reach the handler, however large.
var noLimits = broadway.MessageLimits{Payload: -1, Key: -1, Headers: -1, HeaderBytes: -1}

// oddRecords are records with everything that Kafka can hold.
func oddRecords() []brokers.Record {
	many := make([]brokers.Header, 1000)
	for i := range many {
		many[i] = brokers.Header{Key: fmt.Sprint("h", i%7), Value: fmt.Append(nil, i)}
	}
	return []brokers.Record{
		{}, {Key: []byte{}, Value: []byte{}}, {Key: []byte("k")}, {Value: []byte("x")},
		{Key: []byte{0xc3, 0x28}, Value: []byte{0, 0x1b, '\r', '\n', '<'}},
		{Value: []byte("x"), Headers: []brokers.Header{{Key: "b", Value: []byte("1")}, {Key: "a"}, {Key: "b", Value: []byte{}}, {Key: "\xff"}, {}}},
		{Value: []byte("x"), Headers: []brokers.Header{{Key: "x-broadway-other", Value: []byte("mine")}}},
		{Value: []byte("x"), Headers: many},
		{Value: []byte("x"), Headers: []brokers.Header{{Key: "large", Value: make([]byte, 400_000)}}},
		{Key: make([]byte, 300_000), Value: bytes.Repeat([]byte("v"), 300_000)},
		{Key: []byte("old"), Time: time.UnixMilli(1)},
	}
}

// fingerprint is equal for records that are equal but for what we add.
func fingerprint(r brokers.Record) string {
	digest := sha256.New()
	field := func(b []byte) { fmt.Fprintf(digest, "%v %d:%s;", b == nil, len(b), b) }
	field(r.Key)
	field(r.Value)
	for _, h := range r.Headers {
		if strings.HasPrefix(h.Key, "x-broadway-") && h.Key != "x-broadway-other" {
			continue
		}
		field([]byte(h.Key))
		field(h.Value)
	}
	return hex.EncodeToString(digest.Sum(nil)[:8])
}

func fingerprints(records []brokers.Record) map[string]int {
	n := map[string]int{}
	for _, r := range records {
		n[fingerprint(r)]++
	}
	return n
}

// failAll runs a pipeline that gives up each message of topic, with a long error.
func failAll(t *testing.T, cfg kafka.Config, letters broadway.DeadLetterer) *running {
	reason := broadway.Reject(errors.New(strings.Repeat("no good ", 700_000)))
	return run(t, broadway.Config{
		Producers:        []broadway.Producer{kafka.NewProducer(cfg)},
		Processor:        broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error { return reason }},
		Failure:          broadway.FailurePolicy{Action: broadway.ActionDeadLetter, DeadLetter: letters},
		MessageLimits:    noLimits,
		ReconnectBackoff: broadway.Backoff{Initial: 20 * time.Millisecond, Max: 200 * time.Millisecond},
		DrainTimeout:     5 * time.Second,
	})
}

func size(records []brokers.Record) (n int) {
	for _, r := range records {
		for _, h := range r.Headers {
			if strings.HasPrefix(h.Key, "x-broadway-") && h.Key != acknowledgers.HeaderID && h.Key != acknowledgers.HeaderTime {
				n += len(h.Key) + len(h.Value)
			}
		}
	}
	return n
}

// Every message fails, is put back, and fails again, many times: it stays what it
// was, byte by byte, and its dead letters do not grow.
func TestDeadLettersAndReplaysAreByteEqual(t *testing.T) {
	const rounds = 5
	b := brokers.Kafka(t)
	work, dead := b.Topic(t, 2), b.Topic(t, 1)
	b.Produce(t, work, oddRecords()...)
	want := fingerprints(oddRecords())
	p := publisher(t, kafka.PublisherConfig{Brokers: b.Addrs()})
	source := config(t, b, work)
	failing := failAll(t, source, &acknowledgers.DeadLetters{Publisher: p, Destination: dead})
	cfg := config(t, b, dead)
	n, first := len(oddRecords()), 0
	for round := range rounds {
		var letters []brokers.Record
		eventually(t, "dead letters", func() error {
			if letters = b.Records(t, dead); len(letters) != n*(round+1) {
				return fmt.Errorf("%d letters in round %d", len(letters), round)
			}
			return nil
		})
		letters = letters[n*round:]
		if got := fingerprints(letters); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("round %d: dead letters %v, want %v", round, got, want)
		}
		if added := size(letters); round == 0 {
			first = added
			if added > n*4096 {
				t.Errorf("%d bytes of headers were added to %d letters", added, n)
			}
		} else if added != first {
			t.Errorf("round %d: %d bytes of headers were added, at first %d", round, added, first)
		}
		got, err := acknowledgers.Replay{Source: kafka.NewProducer(cfg), Publisher: p, Rest: acknowledgers.PassOver, Logger: logger(t)}.Run(t.Context())
		if err != nil || got != (acknowledgers.Replayed{Back: int64(n)}) {
			t.Fatalf("round %d: %+v, %v", round, got, err)
		}
	}
	eventually(t, "all commits", committedToEnd(t, b, source.Group, work))
	failing.stop(t)
	if got := fingerprints(b.Records(t, work)); fmt.Sprint(got) != fmt.Sprint(times(want, rounds+1)) {
		t.Errorf("after %d rounds: %v, want %v", rounds, got, want)
	}
}

func times(counts map[string]int, n int) map[string]int {
	all := map[string]int{}
	for key, count := range counts {
		all[key] = count * n
	}
	return all
}

// A topic for dead letters that takes less than the original one.
func TestDeadLettersOverTheTopicsLimitAreReferences(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		const limit = 100_000
		work, dead := b.Topic(t, 1), b.Topic(t, 1, fmt.Sprint("max.message.bytes=", limit))
		sizes := []int{10, limit * 95 / 100, limit * 2, 20, limit + 1, 5 * limit}
		var records []brokers.Record
		for i, size := range sizes {
			records = append(records, brokers.Record{Key: fmt.Append(nil, i), Value: bytes.Repeat([]byte{byte('a' + i)}, size)})
		}
		b.Produce(t, work, records...)
		p := publisher(t, kafka.PublisherConfig{Brokers: b.Addrs(), Topic: dead})
		source := config(t, b, work)
		failing := failAll(t, source, &acknowledgers.DeadLetters{Publisher: p})
		eventually(t, "all dead letters", func() error {
			if n := len(b.Records(t, dead)); n != len(sizes) {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
		failing.stop(t)
		for _, r := range b.Records(t, dead) {
			var i int
			if _, err := fmt.Sscan(string(r.Key), &i); err != nil {
				t.Fatal(err)
			}
			whole := sizes[i] < limit
			sum := sha256.Sum256(records[i].Value)
			switch {
			case whole != bytes.Equal(r.Value, records[i].Value):
				t.Errorf("a message of %d bytes came as %d", sizes[i], len(r.Value))
			case !whole && (len(r.Value) != acknowledgers.MaxReferencePayload || value(r, acknowledgers.HeaderSize) != fmt.Sprint(sizes[i]) ||
				value(r, acknowledgers.HeaderSHA256) != hex.EncodeToString(sum[:]) || value(r, acknowledgers.HeaderID) != fmt.Sprintf("%s/0/%d", work, i)):
				t.Errorf("the reference to %d bytes has %d, and %q", sizes[i], len(r.Value), r.Headers[:3])
			}
		}
	})
}

func value(r brokers.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return "(none)"
}

// Nothing takes the dead letters: their messages stay, uncommitted, and the
// health says why, until it is mended. Those beside them are settled.
func TestUnwritableDeadLettersLeaveTheirMessages(t *testing.T) {
	b := brokers.Kafka(t)
	work, dead := b.Topic(t, 2), b.Topic(t, 1)
	missing := dead + "-missing"
	p := publisher(t, kafka.PublisherConfig{Brokers: b.Addrs(), Timeout: 2 * time.Second})
	letters := &acknowledgers.DeadLetters{Publisher: p, Route: func(m *broadway.Message) string {
		if string(m.Payload) == "misdirected" {
			return missing
		}
		return dead
	}}
	b.Produce(t, work, brokers.Record{Value: []byte("misdirected"), Partition: 0}, brokers.Record{Value: []byte("a"), Partition: 1})
	cfg := config(t, b, work)
	start := func() *running {
		return run(t, broadway.Config{
			Producers:        []broadway.Producer{kafka.NewProducer(cfg)},
			Processor:        broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error { return broadway.Reject(errBad) }},
			Failure:          broadway.FailurePolicy{Action: broadway.ActionDeadLetter, DeadLetter: letters},
			ReconnectBackoff: broadway.Backoff{Initial: 20 * time.Millisecond, Max: 200 * time.Millisecond},
			DrainTimeout:     4 * time.Second,
		})
	}
	r := start()
	eventually(t, "the health says why", func() error {
		if err := r.Stats().Err; err == nil || !strings.Contains(err.Error(), missing) {
			return fmt.Errorf("health %v", err)
		}
		return nil
	})
	b.Produce(t, work, brokers.Record{Value: []byte("b"), Partition: 1}) // comes later, and does not wait
	eventually(t, "its neighbours are committed", func() error {
		if got := b.CommittedOffsets(t, cfg.Group, work); got[0] > 0 || got[1] != 2 {
			return fmt.Errorf("committed %v", got)
		}
		return nil
	})
	r.cancel()
	<-r.done
	if !errors.Is(r.err, broadway.ErrDrainTimeout) {
		t.Errorf("Run: %v", r.err)
	}
	if got := b.CommittedOffsets(t, cfg.Group, work); got[0] > 0 {
		t.Errorf("committed %v, though its dead letter was never written", got)
	}
	b.CreateTopic(t, missing, 1)
	r = start()
	eventually(t, "all is committed", committedToEnd(t, b, cfg.Group, work))
	r.stop(t)
	if got := b.Records(t, missing); len(got) != 1 || string(got[0].Value) != "misdirected" {
		t.Errorf("%d letters", len(got))
	}
}

// A user who may read, and not write the dead letters.
func TestDeadLettersWithoutPermissionLeaveTheirMessages(t *testing.T) {
	b := brokers.Exclusive(t).Kafka("authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users=User:ANONYMOUS", "allow.everyone.if.no.acl.found=true")
	work, dead := b.Topic(t, 1), b.Topic(t, 1)
	addr, user, password := b.SASL(t)
	admin, err := kgo.NewClient(kgo.SeedBrokers(b.Addrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	deny := kmsg.NewCreateACLsRequestCreation()
	deny.ResourceType, deny.ResourceName, deny.ResourcePatternType = kmsg.ACLResourceTypeTopic, dead, kmsg.ACLResourcePatternTypeLiteral
	deny.Principal, deny.Host = "User:"+user, "*"
	deny.Operation, deny.PermissionType = kmsg.ACLOperationAll, kmsg.ACLPermissionTypeDeny
	create := kmsg.NewPtrCreateACLsRequest()
	create.Creations = append(create.Creations, deny)
	if r, err := create.RequestWith(t.Context(), admin); err != nil || r.Results[0].ErrorCode != 0 {
		t.Fatalf("denying: %v, %+v", err, r)
	}
	b.Produce(t, work, brokers.Record{Value: []byte("x")})
	sasl := &kafka.SASL{Mechanism: kafka.ScramSHA256, Credentials: kafka.StaticCredentials(user, kafka.Secret(password))}
	p := publisher(t, kafka.PublisherConfig{Brokers: []string{addr}, Topic: dead, SASL: sasl})
	cfg := config(t, b.KafkaBroker, work)
	r := failAll(t, cfg, &acknowledgers.DeadLetters{Publisher: p})
	eventually(t, "the health says why", func() error {
		if err := r.Stats().Err; err == nil || !strings.Contains(err.Error(), "Authorization") {
			return fmt.Errorf("health %v", err)
		}
		return nil
	})
	if got := b.CommittedOffsets(t, cfg.Group, work); got[0] > 0 {
		t.Errorf("committed %v, though its dead letter was never written", got)
	}
	forgive := kmsg.NewDeleteACLsRequestFilter()
	forgive.ResourceType, forgive.ResourcePatternType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny
	forgive.Operation, forgive.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
	remove := kmsg.NewPtrDeleteACLsRequest()
	remove.Filters = append(remove.Filters, forgive)
	if r, err := remove.RequestWith(t.Context(), admin); err != nil || r.Results[0].ErrorCode != 0 {
		t.Fatalf("forgiving: %v, %+v", err, r)
	}
	eventually(t, "all is committed", committedToEnd(t, b.KafkaBroker, cfg.Group, work))
	r.stop(t)
	if n := len(b.Records(t, dead)); n != 1 {
		t.Errorf("%d dead letters", n)
	}
}
