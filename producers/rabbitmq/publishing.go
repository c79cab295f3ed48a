package rabbitmq

import (
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Publishing is a message with everything that AMQP can say about it, for
// Publisher.Send.
type Publishing struct {
	// Exchange is where the message goes. Default: the Publisher's Exchange.
	// RoutingKey defaults to the Publisher's when both are empty.
	Exchange   string
	RoutingKey string
	// Headers may hold what [Table] allows.
	Headers Table

	ContentType     string
	ContentEncoding string
	// Transient lets the message be lost when the broker restarts. Default:
	// persistent.
	Transient bool
	// Priority is 0 to 255; most queues know 0 only.
	Priority uint8
	// CorrelationID and ReplyTo belong to request and reply.
	CorrelationID string
	ReplyTo       string
	// Expiration is the message's time to live, in milliseconds, as text.
	Expiration string
	// ID is the message id, by which its readers can tell a repetition.
	ID string
	// Timestamp is in seconds; zero sets none.
	Timestamp time.Time
	Type      string
	// UserID must be the user of the connection, if set.
	UserID string
	AppID  string
	// Body is the payload. AMQP does not tell nil from empty.
	Body []byte
}

// Republishing is the Publishing that sends the message of m on, with all that
// AMQP said about it, to where the Publisher sends.
func (m *Metadata) Republishing(body []byte) Publishing {
	return Publishing{
		Headers: m.Headers, ContentType: m.ContentType, ContentEncoding: m.ContentEncoding,
		Transient: !m.Persistent, Priority: m.Priority, CorrelationID: m.CorrelationID, ReplyTo: m.ReplyTo,
		ID: m.ID, Timestamp: m.Timestamp, Type: m.Type, AppID: m.AppID, Body: body,
	}
}

// wire is p as the client sends it, or why it cannot be sent: a mistake here
// would end the connection, and with it what others publish.
func (p *Publishing) wire(maxBytes int) (amqp.Publishing, error) {
	for _, s := range [...]struct{ name, value string }{
		{"exchange", p.Exchange}, {"routing key", p.RoutingKey}, {"content type", p.ContentType},
		{"content encoding", p.ContentEncoding}, {"correlation id", p.CorrelationID}, {"reply-to", p.ReplyTo},
		{"expiration", p.Expiration}, {"message id", p.ID}, {"type", p.Type}, {"user id", p.UserID}, {"app id", p.AppID},
	} {
		if len(s.value) > maxShortString {
			return amqp.Publishing{}, fmt.Errorf("rabbitmq: the %s has %d bytes, more than %d", s.name, len(s.value), maxShortString)
		}
	}
	if len(p.Body) > maxBytes {
		return amqp.Publishing{}, errLarger(len(p.Body), int64(maxBytes))
	}
	headers, err := toWire(p.Headers)
	if err != nil {
		return amqp.Publishing{}, fmt.Errorf("rabbitmq: header %w", err)
	}
	mode := amqp.Persistent
	if p.Transient {
		mode = amqp.Transient
	}
	return amqp.Publishing{
		Headers: headers, ContentType: p.ContentType, ContentEncoding: p.ContentEncoding,
		DeliveryMode: mode, Priority: p.Priority, CorrelationId: p.CorrelationID, ReplyTo: p.ReplyTo,
		Expiration: p.Expiration, MessageId: p.ID, Timestamp: p.Timestamp, Type: p.Type,
		UserId: p.UserID, AppId: p.AppID, Body: p.Body,
	}, nil
}
