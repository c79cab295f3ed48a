// Package wire reads what crosses a TCP proxy: the group and produce requests of Kafka, and AMQP 0-9-1. It shares no code with
// the clients under test, so that it proves what they did without asking them.
//
// A decoder follows one TCP connection. It takes bytes however they are split, keeps no more of them than the frame that it is
// in, and tells of each thing by an [Event]. When bytes cannot be what the protocol says, or are of a version that it does not
// know, it tells so once and ignores the rest of that connection: evidence that is not whole must not look whole.
package wire

// Kind says what an event is.
type Kind string

// Events of Kafka. One event tells of one partition; requests and answers belong together by Conn and Correlation.
const (
	Commit        Kind = "commit"         // OffsetCommit request
	CommitAnswer  Kind = "commit-answer"  // with Code
	Join          Kind = "join"           // JoinGroup request; Member may be empty
	JoinAnswer    Kind = "join-answer"    // with Member, Generation and Code
	Leave         Kind = "leave"          // LeaveGroup request, one event for each member
	LeaveAnswer   Kind = "leave-answer"   // with Code
	Produce       Kind = "produce"        // with Count; Code is how many replicas must acknowledge
	ProduceAnswer Kind = "produce-answer" // with Offset, the first one's, Count and Code
)

// Events of AMQP.
const (
	ChannelOpen  Kind = "channel-open"
	ChannelClose Kind = "channel-close" // with Code and Text of whoever closes
	ConnClose    Kind = "conn-close"    // with Code and Text of whoever closes
	Consume      Kind = "consume"       // with Source and Consumer
	Deliver      Kind = "deliver"       // with Tag, ID, Redelivered, Consumer, Exchange, RoutingKey
	GetOK        Kind = "get-ok"        // like Deliver
	Ack          Kind = "ack"           // of the client, with Tag and Multiple
	Nack         Kind = "nack"          // of the client, with Tag, Multiple and Requeue
	Reject       Kind = "reject"        // of the client, with Tag and Requeue
	Cancel       Kind = "cancel"        // of the client, with Consumer
	CancelServer Kind = "cancel-server" // of the broker, with Consumer
	Publish      Kind = "publish"       // with ID and, once the channel confirms, Tag: its number
	Confirm      Kind = "confirm"       // of the broker, with Tag and Multiple
	Unconfirm    Kind = "unconfirm"     // of the broker: a nack, with Tag and Multiple
	Return       Kind = "return"        // with ID, Code and Text
	Blocked      Kind = "blocked"       // connection.blocked, with Text
	Unblocked    Kind = "unblocked"
)

// Events of both.
const (
	// Closed is the end of the TCP connection.
	Closed Kind = "closed"
	// Undecodable is the last event of a connection but for Closed: Text says why.
	Undecodable Kind = "undecodable"
)

// Event is something that crossed the proxy. Fields that do not concern its Kind are zero.
type Event struct {
	Kind Kind  `json:"kind"`
	At   int64 `json:"at"`   // when the last byte of it arrived at the proxy, see ledger.Now
	Conn int64 `json:"conn"` // the connection, as the proxy numbers it

	// Of Kafka.
	Correlation int32  `json:"correlation,omitempty"`
	Version     int16  `json:"version,omitempty"`
	Group       string `json:"group,omitempty"`
	Member      string `json:"member,omitempty"`
	Generation  int32  `json:"generation,omitempty"`
	Topic       string `json:"topic,omitempty"`
	TopicID     string `json:"topic_id,omitempty"` // in hex, of versions that have no name
	Partition   int32  `json:"partition,omitempty"`
	Offset      int64  `json:"offset,omitempty"`
	LeaderEpoch int32  `json:"leader_epoch,omitempty"`
	Metadata    string `json:"metadata,omitempty"`
	Count       int    `json:"count,omitempty"` // records

	// Of AMQP.
	Channel uint16 `json:"channel,omitempty"`
	// Session counts how often the channel number was opened on its connection, from 1. With Conn and Channel it names one
	// channel, whose delivery tags are its own.
	Session     int    `json:"session,omitempty"`
	Tag         uint64 `json:"tag,omitempty"`
	Multiple    bool   `json:"multiple,omitempty"`
	Requeue     bool   `json:"requeue,omitempty"`
	Redelivered bool   `json:"redelivered,omitempty"`
	NoAck       bool   `json:"no_ack,omitempty"` // of Consume, Deliver: settled as it is sent
	Consumer    string `json:"consumer,omitempty"`
	Queue       string `json:"queue,omitempty"`
	Exchange    string `json:"exchange,omitempty"`
	RoutingKey  string `json:"routing_key,omitempty"`
	ID          string `json:"id,omitempty"` // the property message-id

	Code int    `json:"code,omitempty"` // of either protocol
	Text string `json:"text,omitempty"`
}

// Decoder follows one connection. Client and Server take what came from either side, in order; they may be called at the same
// time. Events of a connection come one at a time, in the order of the calls, before the call returns: a proxy that forwards
// after the call knows that an event's time is before anything that the event has caused.
type Decoder interface {
	Client(at int64, p []byte)
	Server(at int64, p []byte)
	// Close tells that the connection has ended.
	Close(at int64)
}
