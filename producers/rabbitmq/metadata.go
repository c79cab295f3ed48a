package rabbitmq

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
)

// Metadata is what RabbitMQ tells about a message: the Metadata of each
// broadway.Message of a Producer, as a *Metadata.
type Metadata struct {
	// Queue is where the message was consumed from.
	Queue string
	// Exchange and RoutingKey are what it was published to.
	Exchange   string
	RoutingKey string
	// Headers are the application's and the broker's, with their types on the
	// wire. Nil when there are none.
	Headers Table

	ContentType     string
	ContentEncoding string
	// Persistent says that the message survives a restart of the broker, in a
	// durable queue.
	Persistent bool
	// Priority is 0 to 255.
	Priority uint8
	// CorrelationID and ReplyTo belong to request and reply.
	CorrelationID string
	ReplyTo       string
	// Expiration is the message's time to live, in milliseconds, as text; ""
	// for none.
	Expiration string
	// ID is the publisher's message id; see also MessageID.
	ID string
	// Timestamp is the publisher's, in seconds; zero when there is none.
	Timestamp time.Time
	// Type, UserID and AppID are the publisher's; the broker checks the user.
	Type   string
	UserID string
	AppID  string

	// ConsumerTag and DeliveryTag are those of this delivery, within its
	// session.
	ConsumerTag string
	DeliveryTag uint64
	// Redelivered says that the broker delivered the message before, to anyone.
	Redelivered bool
	// DeliveryCount is how often the broker counted a delivery of the message
	// before: x-acquired-count (RabbitMQ 4.3 and later), else x-delivery-count,
	// both of quorum queues. 0 when the broker does not tell.
	DeliveryCount int64

	payload  []byte
	returned int64 // see attempts.go
	came     time.Time
}

var (
	_ broadway.Identifier = (*Metadata)(nil)
	_ broadway.Enveloped  = (*Metadata)(nil)
	_ broadway.Propertied = (*Metadata)(nil)
	_ broadway.Annotated  = (*Metadata)(nil)

	_ broadway.DeliveredAt = (*Metadata)(nil)
)

// DeliveredAt is when the client took the message in: from then on the broker waits
// for its acknowledgement.
func (m *Metadata) DeliveredAt() time.Time { return m.came }

// MessageID is the queue and the publisher's message id. AMQP has no other id
// that survives a redelivery: without one it is the queue and a digest of the
// message, which is the same for equal messages.
func (m *Metadata) MessageID() string {
	if m.ID != "" {
		return m.Queue + "/" + m.ID
	}
	digest := sha256.New()
	field := func(s string) {
		digest.Write(strconv.AppendInt(nil, int64(len(s)), 10))
		digest.Write([]byte{':'})
		digest.Write([]byte(s))
	}
	field(m.Exchange)
	field(m.RoutingKey)
	field(m.CorrelationID)
	field(m.Type)
	field(m.AppID)
	if !m.Timestamp.IsZero() {
		field(strconv.FormatInt(m.Timestamp.Unix(), 10))
	}
	digest.Write(m.payload)
	return m.Queue + "/sha256-" + hex.EncodeToString(digest.Sum(nil)[:16])
}

// MessageOrigin is the queue.
func (m *Metadata) MessageOrigin() string { return m.Queue }

// MessageKey is the key of a message that a Publisher has copied from a broker
// that knows keys, and nil for others: a routing key says where a message goes,
// not what it belongs to.
func (m *Metadata) MessageKey() []byte {
	key, _ := m.Headers[acknowledgers.HeaderKey].([]byte)
	return key
}

// MessageHeaders are the headers in the order of their keys, as AMQP keeps none.
// Strings and bytes are as they are; nil is nil; times are in RFC 3339, tables
// and arrays in JSON, everything else in decimal notation. The broker's counts of
// deliveries are left out, and headers that a Publisher has copied as a list are
// as they were.
func (m *Metadata) MessageHeaders() []broadway.Header {
	list := m.Headers.headers()
	if len(list) == 0 {
		return nil
	}
	copied, isCopied := copiedHeaders(m.Headers[headerList])
	list = slices.DeleteFunc(list, func(h broadway.Header) bool {
		return m.Redelivered && isDeliveryCount(h.Key) || isCopied && h.Key == headerList
	})
	return append(copied, list...)
}

// fill makes m the metadata of d.
func (m *Metadata) fill(d *amqp.Delivery, queue string) {
	*m = Metadata{
		Queue: queue, Exchange: d.Exchange, RoutingKey: d.RoutingKey,
		Headers:     fromWire(d.Headers),
		ContentType: d.ContentType, ContentEncoding: d.ContentEncoding,
		Persistent: d.DeliveryMode == amqp.Persistent, Priority: d.Priority,
		CorrelationID: d.CorrelationId, ReplyTo: d.ReplyTo, Expiration: d.Expiration,
		ID: d.MessageId, Timestamp: d.Timestamp, Type: d.Type, UserID: d.UserId, AppID: d.AppId,
		ConsumerTag: d.ConsumerTag, DeliveryTag: d.DeliveryTag, Redelivered: d.Redelivered,
		payload: d.Body,
	}
	m.DeliveryCount, m.returned = deliveryCount(m), returnedCount(m)
}

// deliveryCounts are the headers in which brokers count, the best first.
var deliveryCounts = [...]string{"x-acquired-count", "x-delivery-count"}

func isDeliveryCount(key string) bool { return slices.Contains(deliveryCounts[:], key) }

// deliveryCount reads the broker's count. A publisher can set the same headers:
// on a message that was not delivered before they are not the broker's.
func deliveryCount(m *Metadata) int64 {
	if !m.Redelivered || len(m.Headers) == 0 {
		return 0
	}
	for _, header := range deliveryCounts {
		if n, ok := integer(m.Headers[header]); ok {
			return min(max(n, 0), 1<<30)
		}
	}
	return 0
}

// returnedCount is how often the message came back from a consumer that was lost
// or rejected it, and before RabbitMQ 4.3 also from one that handed it back. The
// other count includes the latter on 4.3, too, so it proves less.
func returnedCount(m *Metadata) int64 {
	if n, ok := integer(m.Headers["x-delivery-count"]); ok && m.Redelivered {
		return min(max(n, 0), 1<<30)
	}
	return 0
}

// What headers take in memory besides their keys, strings and bytes, on 64-bit
// machines and rounded up: an entry and an element of them, whatever its value, and
// a table that they nest.
const (
	entryWeight   = 80
	elementWeight = 24
	tableWeight   = 48
)

// weight is how many bytes a message counts for: its payload, and its headers as they
// are in memory. On the wire an entry may take 3 bytes, and nested tables are headers
// like others.
func (m *Metadata) weight() int64 { return int64(len(m.payload)) + valueWeight(m.Headers) }

func valueWeight(value any) (n int64) {
	switch v := value.(type) {
	case string:
		return int64(len(v))
	case []byte:
		return int64(len(v))
	case Table:
		if v == nil {
			return 0
		}
		n = tableWeight
		for key, value := range v {
			n += entryWeight + int64(len(key)) + valueWeight(value)
		}
	case []any:
		for _, value := range v {
			n += elementWeight + valueWeight(value)
		}
	}
	return n
}
