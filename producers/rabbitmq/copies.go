package rabbitmq

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
)

const (
	// headerCC and headerBCC would send a message to further queues, and cost the
	// channel when they are text: what is a copy has them under the other names.
	headerCC, copyOfCC   = "CC", "x-broadway-cc"
	headerBCC, copyOfBCC = "BCC", "x-broadway-bcc"
	// headerList holds headers that a table cannot: an array of keys and values
	// in turn, in the order of their source.
	headerList = "x-broadway-headers"

	prefixProperty = "x-broadway-amqp-"
)

// publishing is r as a Publishing.
//
// Header values are sent as text: that is what other clients read, and bytes come
// back unchanged. Of headers with one key the last is sent, as AMQP has no
// others. A copy of a message keeps more: see copyProperties, and
//   - of a message of AMQP, each header that is unchanged keeps its type;
//   - of any other, the key is a header, and headers that share a key, or whose
//     key is too long, are kept as one list.
func publishing(r *broadway.Record) Publishing {
	p := Publishing{RoutingKey: r.Destination, ID: r.ID, Body: r.Payload}
	source, same := r.Source.(*Metadata)
	headers := r.Headers
	switch {
	case same:
		p.copyProperties(source)
	case r.Source != nil:
		headers = p.takeProperties(headers)
	}
	p.Headers = make(Table, len(headers)+1)
	if r.Source != nil && !same {
		headers = p.takeList(headers)
	}
	if r.Source != nil && r.Key != nil {
		p.Headers[acknowledgers.HeaderKey] = r.Key
	}
	for _, h := range headers {
		p.Headers[safeKey(h.Key)] = headerValue(h, source)
	}
	if len(p.Headers) == 0 {
		p.Headers = nil
	}
	return p
}

// headerValue is what is sent for h: with the type that it has in source when it
// is the same there.
func headerValue(h broadway.Header, source *Metadata) any {
	if source != nil {
		if typed, ok := source.Headers[h.Key]; ok {
			if t := text(typed); bytes.Equal(t, h.Value) && (t == nil) == (h.Value == nil) {
				return typed
			}
		}
	}
	if h.Value == nil {
		return nil
	}
	return string(h.Value)
}

// safeKey is the key under which a header is sent.
func safeKey(key string) string {
	switch key {
	case headerCC:
		return copyOfCC
	case headerBCC:
		return copyOfBCC
	}
	return key
}

// copyProperties takes over what m says besides headers, but for what a copy
// cannot carry: see MessageAnnotations. Copies are persistent.
func (p *Publishing) copyProperties(m *Metadata) {
	p.ContentType, p.ContentEncoding, p.Priority = m.ContentType, m.ContentEncoding, m.Priority
	p.CorrelationID, p.ReplyTo, p.ID = m.CorrelationID, m.ReplyTo, m.ID
	p.Timestamp, p.Type, p.AppID = m.Timestamp, m.Type, m.AppID
	if p.ReplyTo == directReply {
		p.ReplyTo = "" // stands for a consumer of the channel that it is sent on
	}
}

// directReply is a reply-to that costs the channel unless that has a consumer for
// it.
const directReply = "amq.rabbitmq.reply-to"

// MessageProperties are the properties that a copy on another broker has as
// headers, such as x-broadway-amqp-content-type. A Publisher makes properties of
// them again.
func (m *Metadata) MessageProperties() []broadway.Header {
	var list []broadway.Header
	add := func(name, value string) {
		if value != "" {
			list = append(list, broadway.Header{Key: prefixProperty + name, Value: []byte(value)})
		}
	}
	add("content-type", m.ContentType)
	add("content-encoding", m.ContentEncoding)
	if m.Priority > 0 {
		add("priority", strconv.Itoa(int(m.Priority)))
	}
	add("correlation-id", m.CorrelationID)
	add("reply-to", m.ReplyTo)
	if origin := text(m.Headers[acknowledgers.HeaderID]); m.ID != "" && !bytes.HasPrefix(origin, []byte(m.ID)) {
		add("message-id", m.ID) // else it is ours: see DeadLetters
	}
	if !m.Timestamp.IsZero() {
		add("timestamp", strconv.FormatInt(m.Timestamp.Unix(), 10))
	}
	add("type", m.Type)
	add("app-id", m.AppID)
	return list
}

// takeProperties sets what MessageProperties has told, and returns the other
// headers. The id is then the message's own.
func (p *Publishing) takeProperties(headers []broadway.Header) []broadway.Header {
	if !slices.ContainsFunc(headers, func(h broadway.Header) bool { return strings.HasPrefix(h.Key, prefixProperty) }) {
		return headers
	}
	p.ID = ""
	var others []broadway.Header
	for _, h := range headers {
		name, ok := strings.CutPrefix(h.Key, prefixProperty)
		if !ok || !p.takeProperty(name, string(h.Value)) {
			others = append(others, h)
		}
	}
	return others
}

// takeProperty says whether it has set the property of that name.
func (p *Publishing) takeProperty(name, value string) bool {
	if len(value) > maxShortString {
		return false
	}
	switch name {
	case "content-type":
		p.ContentType = value
	case "content-encoding":
		p.ContentEncoding = value
	case "priority":
		n, err := strconv.ParseUint(value, 10, 8)
		if err != nil {
			return false
		}
		p.Priority = uint8(n)
	case "correlation-id":
		p.CorrelationID = value
	case "reply-to":
		if value == directReply {
			return false
		}
		p.ReplyTo = value
	case "message-id":
		p.ID = value
	case "timestamp":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return false
		}
		p.Timestamp = time.Unix(n, 0)
	case "type":
		p.Type = value
	case "app-id":
		p.AppID = value
	default:
		return false
	}
	return true
}

// MessageAnnotations are what a copy cannot carry: the time to live, which would
// end it, the user, who need not be the publisher's, and where the message was
// sent to.
func (m *Metadata) MessageAnnotations() []broadway.Header {
	var list []broadway.Header
	for _, a := range [...]struct{ name, value string }{
		{"expiration", m.Expiration}, {"user-id", m.UserID}, {"exchange", m.Exchange},
		{"routing-key", m.RoutingKey},
	} {
		if a.value == "" || m.Exchange == "" && a.name == "routing-key" {
			continue // of the default exchange it is the queue
		}
		list = append(list, broadway.Header{Key: acknowledgers.PrefixSource + a.name, Value: []byte(a.value)})
	}
	return list
}

// takeList keeps headers as a list that have no place in a table, and returns
// those that go there: then only ours.
func (p *Publishing) takeList(headers []broadway.Header) []broadway.Header {
	seen := make(map[string]bool, len(headers))
	fits := true
	for _, h := range headers {
		fits = fits && !seen[h.Key] && len(h.Key) <= maxShortString
		seen[h.Key] = true
	}
	if fits {
		return headers
	}
	var list []any
	var others []broadway.Header
	for _, h := range headers {
		if strings.HasPrefix(h.Key, "x-broadway-") {
			others = append(others, h)
			continue
		}
		list = append(list, h.Key, headerValue(h, nil))
	}
	p.Headers[headerList] = list
	return others
}

// copiedHeaders are those that takeList has kept, if v is that.
func copiedHeaders(v any) ([]broadway.Header, bool) {
	list, ok := v.([]any)
	if !ok || len(list)%2 != 0 {
		return nil, false
	}
	headers := make([]broadway.Header, 0, len(list)/2)
	for i := 0; i < len(list); i += 2 {
		key, isText := list[i].(string)
		if !isText {
			return nil, false
		}
		headers = append(headers, broadway.Header{Key: key, Value: text(list[i+1])})
	}
	return headers, true
}
