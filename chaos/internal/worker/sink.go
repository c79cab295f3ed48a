package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/producers/kafka"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// sink is what lies downstream: the handlers and reporters of all members, and the ledger that they write.
type sink struct {
	cfg     Config
	writer  *ledger.Writer
	faults  *faults
	fail    *failPoint
	reports *reports // nil without
	seq     atomic.Int64
	handled atomic.Int64
	down    atomic.Bool  // what lies behind the sink is not there
	refused atomic.Int64 // calls meanwhile
}

var errDown = errors.New("the sink is down")

// available says whether the sink can be written to.
func (s *sink) available() error {
	if !s.down.Load() {
		return nil
	}
	s.refused.Add(1)
	return broadway.Unavailable(errDown)
}

// handle is the processor. Without batches it is where the success is written.
func (s *sink) handle(ctx context.Context, m *broadway.Message) error {
	s.fail.reach(BeforeHandler)
	entry := s.observe(m)
	if s.cfg.Verify && !load.Whole(m.Payload) {
		return errors.New("the body is not as it was made")
	}
	if err := s.faults.strike(ctx, entry.ID, false); err != nil {
		return err
	}
	if err := wait(ctx, s.cfg.Delay); err != nil {
		return err
	}
	if s.cfg.Batch != nil {
		m.Value = entry
		return nil
	}
	if err := s.available(); err != nil {
		return err
	}
	return s.succeed(entry)
}

// report is the reporter: the success of each member is written before it returns.
func (s *sink) report(ctx context.Context, b *broadway.Batch) error {
	if err := s.available(); err != nil {
		return err
	}
	entries := make([]ledger.Observation, len(b.Messages))
	for i, m := range b.Messages {
		entry, ok := m.Value.(ledger.Observation)
		if !ok {
			entry = s.observe(m)
		}
		entry.Attempt = m.Attempt
		entries[i] = entry
	}
	contract := s.faults.batch(entries)
	if err := breakContract(contract, b); err != nil {
		return err
	}
	if err := s.writeReport(entries); err != nil {
		return err
	}
	failures := new(broadway.BatchError)
	for i, m := range b.Messages {
		if i == len(b.Messages)/2 {
			s.fail.reach(WithinBatch)
			if contract == Half {
				panic("struck on purpose")
			}
		}
		err := s.faults.strike(ctx, entries[i].ID, true)
		if err == nil {
			err = s.succeed(entries[i])
		}
		if err != nil {
			failures.Fail(m, err)
		}
	}
	return failures.Err()
}

// writeReport writes a batch to the reports. That there is no room is an outage, and no message's fault.
func (s *sink) writeReport(entries []ledger.Observation) error {
	if s.reports == nil {
		return nil
	}
	err := s.reports.write(fmt.Sprintf("%d-%d", os.Getpid(), s.seq.Add(1)), entries)
	if err != nil {
		s.refused.Add(1)
	}
	return broadway.Unavailable(err)
}

// breakContract returns what a batch must not return, before anything of it is written.
func breakContract(kind string, b *broadway.Batch) error {
	failures := new(broadway.BatchError)
	first := b.Messages[0]
	switch kind {
	case Twice:
		failures.Fail(first, errStruck)
		failures.Fail(first, errStruck)
	case Alien:
		failures.Fail(broadway.NewMessage(first.Ref(), 1<<50, nil), errStruck)
	case Whole:
		return errStruck
	}
	return failures.Err()
}

// succeed writes a success. When that fails, the message has not succeeded.
func (s *sink) succeed(entry ledger.Observation) error {
	s.fail.reach(BeforeSink)
	if !s.cfg.NoSink {
		entry.Stage, entry.PID, entry.Seq, entry.At = ledger.Success, os.Getpid(), s.seq.Add(1), ledger.Now()
		if err := s.writer.Append(entry); err != nil {
			return err
		}
	}
	s.handled.Add(1)
	s.fail.reach(AfterSink)
	return nil
}

// observe is what a message says of itself, and its source of it.
func (s *sink) observe(m *broadway.Message) ledger.Observation {
	entry := ledger.Observation{Attempt: m.Attempt, Redelivered: m.Redelivered}
	if !s.cfg.Corpus {
		entry.Sum = ledger.Sum(m.Payload)
		var err error
		if entry.ID, entry.Key, entry.KeySeq, err = load.Parse(m.Payload); err != nil {
			entry.ID = "unreadable-" + entry.Sum[:16]
		}
	}
	switch from := m.Metadata.(type) {
	case *kafka.Metadata:
		entry.Source, entry.Partition, entry.Offset = from.Topic, int32(from.Partition), from.Offset
		if s.cfg.Corpus {
			entry.ID = load.PlaceID(from.Topic, entry.Partition, entry.Offset)
			entry.Sum = load.SumRecord(from.Key, m.Payload, recordHeaders(from.Headers()))
		}
	case *rabbitmq.Metadata:
		entry.Source, entry.Tag, entry.Redelivered = from.Queue, from.DeliveryTag, from.Redelivered
		if s.cfg.Corpus {
			entry.ID, entry.Sum = from.ID, load.SumAMQP(m.Payload, from.Headers, rabbitKind)
		}
	}
	return entry
}

// recordHeaders are headers as the other client has them, but for the framework's own.
func recordHeaders(headers []broadway.Header) []kgo.RecordHeader {
	records := make([]kgo.RecordHeader, len(headers))
	for i, header := range headers {
		records[i] = kgo.RecordHeader{Key: header.Key, Value: header.Value}
	}
	return load.Own(records)
}

// rabbitKind tells the types of package rabbitmq: see load.SumAMQP.
func rabbitKind(value any) (string, map[string]any) {
	switch v := value.(type) {
	case rabbitmq.Table:
		return "table", v
	case rabbitmq.Decimal:
		return fmt.Sprintf("decimal %d %d", v.Scale, v.Value), nil
	}
	return fmt.Sprintf("%T", value), nil
}

// steps makes fail-points of what a pipeline tells.
type steps struct{ fail *failPoint }

// Fetched is a step.
func (s steps) Fetched(e broadway.FetchEvent) {
	if e.Messages > 0 {
		s.fail.reach(AfterFetch)
	}
}

// Handled is a step.
func (s steps) Handled(broadway.HandleEvent) { s.fail.reach(AfterHandled) }

// Reported is a step.
func (s steps) Reported(broadway.ReportEvent) { s.fail.reach(AfterReported) }

// Settled is a step.
func (s steps) Settled(broadway.SettleEvent) { s.fail.reach(AfterSettled) }

// deadLetters makes steps of the publishing of dead letters.
type deadLetters struct {
	broadway.DeadLetterer
	fail *failPoint
}

// DeadLetter publishes, with a step before and one after.
func (d deadLetters) DeadLetter(ctx context.Context, messages []*broadway.Message) error {
	d.fail.reach(BeforeDead)
	err := d.DeadLetterer.DeadLetter(ctx, messages)
	if err == nil {
		d.fail.reach(AfterDead)
	}
	return err
}

// Health is the publisher's.
func (d deadLetters) Health() error {
	if h, ok := d.DeadLetterer.(broadway.HealthChecker); ok {
		return h.Health()
	}
	return nil
}
