package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
)

// window is how many messages of a producer may be without a confirm.
const window = 500

// RabbitMQ publishes the load to a queue: persistent, mandatory, with confirms. It reconnects for as long as ctx lasts; what was
// without a confirm when a connection broke is unknown, and is not sent again.
func RabbitMQ(ctx context.Context, url string, spec Spec, sent *Sent) error {
	return spec.run(func(p int, writer *ledger.Writer) error {
		for i := 0; i < spec.share(p); {
			if err := ctx.Err(); err != nil {
				return err
			}
			session, err := openPublishing(url, fmt.Sprintf("chaos-load-%d", p), writer, sent)
			if err != nil {
				if err := reconnectPause(ctx); err != nil {
					return err
				}
				continue
			}
			for ; i < spec.share(p) && err == nil; i++ {
				entry, body := spec.message(p, i)
				if err = session.publish(ctx, entry, body); err == nil {
					err = spec.pause(ctx)
				}
			}
			if err := session.close(); err != nil {
				return err
			}
		}
		return nil
	})
}

func reconnectPause(ctx context.Context) error {
	timer := time.NewTimer(100 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publishing is one connection of a producer.
type publishing struct {
	conn     *amqp.Connection
	channel  *amqp.Channel
	writer   *ledger.Writer
	sent     *Sent
	room     chan struct{}
	fates    sync.WaitGroup
	failures firstError

	mu       sync.Mutex
	open     map[uint64]ledger.Produced // by confirm number
	returned map[string]bool            // by id; follow's alone
}

func openPublishing(url, name string, writer *ledger.Writer, sent *Sent) (*publishing, error) {
	conn, err := rig.DialAMQP(url, name)
	if err != nil {
		return nil, err
	}
	channel, err := conn.Channel()
	if err == nil {
		err = channel.Confirm(false)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	s := &publishing{
		conn: conn, channel: channel, writer: writer, sent: sent, room: make(chan struct{}, window),
		open: make(map[uint64]ledger.Produced), returned: make(map[string]bool),
	}
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, window))
	returns := channel.NotifyReturn(make(chan amqp.Return, window))
	s.fates.Go(func() { s.follow(confirms, returns) })
	return s, nil
}

// publish sends one message. An error means that the connection is gone; the message's fate is then unknown, and written.
func (s *publishing) publish(ctx context.Context, entry ledger.Produced, body []byte) error {
	select {
	case s.room <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	entry.At = ledger.Now()
	if err := s.writer.Append(entry); err != nil {
		s.failures.keep(err)
		return err
	}
	s.mu.Lock() // held over the publish: its confirm may not be looked up before it is entered
	defer s.mu.Unlock()
	s.open[s.channel.GetNextPublishSeqNo()] = entry
	return s.channel.PublishWithContext(ctx, "", entry.Source, true, false, amqp.Publishing{
		DeliveryMode: amqp.Persistent, MessageId: entry.ID, Body: body, Headers: amqp.Table{"key": entry.Key},
	})
}

// follow writes fates until the channel is closed.
func (s *publishing) follow(confirms <-chan amqp.Confirmation, returns <-chan amqp.Return) {
	for confirms != nil {
		select {
		case message, ok := <-returns: // comes before its confirm
			if ok {
				s.returned[message.MessageId] = true
			} else {
				returns = nil
			}
		case confirm, ok := <-confirms:
			if !ok {
				confirms = nil
				continue
			}
			for drained := false; !drained; {
				select {
				case message, ok := <-returns:
					if ok {
						s.returned[message.MessageId] = true
					}
					drained = !ok
				default:
					drained = true
				}
			}
			s.confirmed(confirm)
		}
	}
}

func (s *publishing) confirmed(confirm amqp.Confirmation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entry, ok := s.open[confirm.DeliveryTag]
	if !ok {
		return
	}
	delete(s.open, confirm.DeliveryTag)
	state := ledger.Acked
	if !confirm.Ack || s.returned[entry.ID] {
		state = ledger.Failed
	}
	s.fate(entry, state)
}

func (s *publishing) fate(entry ledger.Produced, state ledger.State) {
	entry.State, entry.At = state, ledger.Now()
	s.sent.count(state)
	s.failures.keep(s.writer.Append(entry))
	<-s.room
}

// close waits for the confirms that are due, and ends the session: what is left is unknown. Only a ledger that could not be written is an error.
func (s *publishing) close() error {
	limit := time.After(10 * time.Second)
	for waiting := true; waiting; {
		s.mu.Lock()
		waiting = len(s.open) > 0 && !s.conn.IsClosed()
		s.mu.Unlock()
		if waiting {
			select {
			case <-limit:
				waiting = false
			case <-time.After(2 * time.Millisecond):
			}
		}
	}
	_ = s.conn.Close() // it may be what broke
	s.fates.Wait()
	for _, entry := range s.open { // nobody else looks at it any more
		s.fate(entry, ledger.Unknown)
	}
	return s.failures.get()
}
