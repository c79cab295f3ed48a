package kafka

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// dialTimeout bounds connecting, TLS and the first negotiation.
	dialTimeout = 5 * time.Second
	// progressTimeout is how long a connection may stay silent while something
	// waits for it. Long polls add their MaxWait.
	progressTimeout = 10 * time.Second
	// frameSlack is what a response may hold besides records.
	frameSlack = 1 << 20
	// anyBroker is the node of requests that any broker answers.
	anyBroker = -1
)

// versionRange is what a broker speaks of one API.
type versionRange struct{ min, max int16 }

// question is what is asked of a broker.
type question struct {
	request kmsg.Request
	// most is the highest version that our code understands.
	most int16
	// maxFrame bounds the answer, in bytes.
	maxFrame int
	// buffers lend what the answer is read into, and get it back from whoever has
	// the reply. Nil if it is the collector's.
	buffers *buffers
}

// exchange is one request and its answer, as a message of kafka-go's transport:
// that gives connections, pooled, authenticated and encrypted; bytes are written
// and read here, with kmsg as the codec. It holds nothing of the answer, as the
// transport may outlive the call.
//
// Routing is ours, too: the transport has a pool for each address, and is never
// told to find a leader. It knows the cluster from metadata of its own, which it
// may have missed while brokers were away, and which lags behind ours.
type exchange struct {
	question
	clientID string
	// reached says that a connection stood, ready for the request.
	reached atomic.Bool
}

// reply carries an answer, and the memory that it aliases, through kafka-go.
type reply struct {
	response kmsg.Response
	buffer   []byte
}

// ApiKey names the API to kafka-go.
func (r *reply) ApiKey() protocol.ApiKey { return protocol.ApiKey(r.response.Key()) }

// ApiKey names the API to kafka-go.
func (e *exchange) ApiKey() protocol.ApiKey { return protocol.ApiKey(e.request.Key()) }

// Required says that the exchange reads and writes by itself.
func (e *exchange) Required(map[protocol.ApiKey]int16) bool { return true }

// RawExchange writes the request and reads the answer. After an error kafka-go
// closes the connection.
func (e *exchange) RawExchange(rw io.ReadWriter) (m protocol.Message, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("kafka: reading an answer panicked: %v\n%s", r, debug.Stack())
		}
	}()
	e.reached.Store(true)
	wrapped, ok := rw.(interface{ LocalAddr() net.Addr })
	if !ok {
		return nil, errors.New("kafka: the transport hands out no connection")
	}
	c := connOf(wrapped)
	if c == nil {
		return nil, errors.New("kafka: the connection is not ours")
	}
	if c.versions == nil {
		if c.versions, err = e.negotiate(rw, c); err != nil {
			return nil, err
		}
	}
	version, err := pickVersion(e.request, c.versions, e.most)
	if err != nil {
		return nil, err
	}
	// The version belongs to this connection: a copy of the request would cost
	// more, and one request runs on one connection at a time.
	e.request.SetVersion(version)
	if _, polls := e.request.(*kmsg.FetchRequest); polls {
		c.polling.Store(true)
		defer c.polling.Store(false)
	}
	return e.roundTrip(rw, c)
}

// negotiate asks the broker what it speaks. kafka-go has asked too, but keeps
// only what it would choose itself. Version 0 is what every broker answers.
func (e *exchange) negotiate(rw io.ReadWriter, c *conn) (map[int16]versionRange, error) {
	request := kmsg.NewPtrApiVersionsRequest()
	first := exchange{question: question{request: request, maxFrame: frameSlack}, clientID: e.clientID}
	m, err := first.roundTrip(rw, c)
	if err != nil {
		return nil, err
	}
	answer := m.response.(*kmsg.ApiVersionsResponse)
	if answer.ErrorCode != 0 {
		return nil, fmt.Errorf("kafka: asking for API versions: %w", codeError(answer.ErrorCode))
	}
	versions := make(map[int16]versionRange, len(answer.ApiKeys))
	for _, k := range answer.ApiKeys {
		versions[k.ApiKey] = versionRange{k.MinVersion, k.MaxVersion}
	}
	return versions, nil
}

// pickVersion is the highest version that both sides understand.
func pickVersion(request kmsg.Request, versions map[int16]versionRange, most int16) (int16, error) {
	name := kmsg.NameForKey(request.Key())
	r, known := versions[request.Key()]
	if !known {
		return 0, fmt.Errorf("kafka: the broker does not know %s", name)
	}
	version := min(r.max, most, request.MaxVersion())
	if version < r.min {
		return 0, fmt.Errorf("kafka: the broker speaks %s versions %d to %d, and we up to %d", name, r.min, r.max, version)
	}
	return version, nil
}

// roundTrip writes the request and reads its answer.
func (e *exchange) roundTrip(rw io.ReadWriter, c *conn) (*reply, error) {
	c.correlation++
	formatter := kmsg.NewRequestFormatter(kmsg.FormatterClientID(e.clientID))
	if _, err := rw.Write(formatter.AppendRequest(nil, e.request, c.correlation)); err != nil {
		return nil, err
	}
	frame, err := readFrame(rw, e.maxFrame, e.buffers)
	if err != nil {
		return nil, err
	}
	response, err := decodeResponse(frame, e.request, c.correlation)
	if err != nil {
		e.buffers.back(frame)
		return nil, err
	}
	return &reply{response, frame}, nil
}

// errLargeAnswer is why an answer is not read.
var errLargeAnswer = errors.New("kafka: the broker announces an answer that is too large")

// readFrame reads one length-prefixed answer. A length that is a lie costs at
// most a few MiB more than what has really arrived, twice.
func readFrame(r io.Reader, most int, lender *buffers) (_ []byte, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := int64(binary.BigEndian.Uint32(head[:]))
	if size > int64(most) {
		return nil, fmt.Errorf("%w: %d bytes, and %d are the most", errLargeAnswer, size, most)
	}
	if size < 4 {
		return nil, fmt.Errorf("kafka: the broker announces an answer of %d bytes", size)
	}
	frame := lender.lend(int(min(size, trusted)))
	defer func() {
		if err != nil {
			lender.back(frame)
		}
	}()
	for at := 0; ; {
		n, err := io.ReadFull(r, frame[at:])
		if err != nil {
			return nil, err
		}
		at += n
		if int64(at) == size {
			return frame, nil
		}
		frame = lender.grow(frame, int(min(int64(at), size-int64(at))))
	}
}

// decodeResponse checks the correlation id and decodes the body, which aliases
// frame.
func decodeResponse(frame []byte, request kmsg.Request, correlation int32) (kmsg.Response, error) {
	if len(frame) < 4 {
		return nil, io.ErrUnexpectedEOF
	}
	if got := int32(binary.BigEndian.Uint32(frame)); got != correlation {
		return nil, fmt.Errorf("kafka: the broker answers request %d, and %d was asked", got, correlation)
	}
	body := frame[4:]
	response := request.ResponseKind()
	if response.IsFlexible() && request.Key() != kmsg.ApiVersions.Int16() {
		var err error
		if body, err = skipTags(body); err != nil {
			return nil, err
		}
	}
	if err := bodyOf(request, response)(body); err != nil {
		return nil, fmt.Errorf("kafka: malformed answer to %s version %d: %w", kmsg.NameForKey(request.Key()), request.GetVersion(), err)
	}
	return response, nil
}

// skipTags passes over the tagged fields of a response header.
func skipTags(b []byte) ([]byte, error) {
	count, n := binary.Uvarint(b)
	for b = b[max(n, 0):]; n > 0 && count > 0; count-- {
		var size uint64
		if _, n = binary.Uvarint(b); n <= 0 {
			break
		}
		b = b[n:]
		if size, n = binary.Uvarint(b); n <= 0 || size > uint64(len(b)-n) {
			n = 0
			break
		}
		b = b[n+int(size):]
	}
	if n <= 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return b, nil
}

// wire sends exchanges through kafka-go's transport.
type wire struct {
	network   *network
	transport *kafkago.Transport
	seeds     net.Addr
	clientID  string
	// hint says what a broker may mean that closes a connection before the
	// first request: it gives no reason.
	hint string

	mu    sync.Mutex // protects following field
	nodes map[int32]net.Addr
}

// endpoint is what a wire needs to know of a Config or a PublisherConfig.
type endpoint struct {
	brokers  []string
	clientID string
	tls      *tls.Config
	sasl     *SASL
	progress time.Duration
}

func newWire(e endpoint) *wire {
	n := newNetwork(e.progress)
	hint := "closed by the broker before the first request (does it want TLS or SASL?)"
	if e.sasl != nil {
		hint = fmt.Sprintf("closed by the broker while authenticating by SASL %s (wrong credentials?)", e.sasl.Mechanism)
	}
	return &wire{
		hint:    hint,
		network: n,
		transport: &kafkago.Transport{
			Dial:        n.dial,
			DialTimeout: dialTimeout,
			// What the transport asks for on its own account is of no use here. It
			// asks at least once; nil would mean all topics of the cluster.
			MetadataTopics: []string{},
			MetadataTTL:    24 * time.Hour,
			ClientID:       e.clientID,
			TLS:            e.tls,
			SASL:           saslMechanism(e.sasl),
		},
		seeds:    kafkago.TCP(e.brokers...),
		clientID: e.clientID,
		nodes:    map[int32]net.Addr{},
	}
}

// ask sends request to node and waits for the answer. It is never cancelled, but
// bounded: by the dial's time limit and by the connection's progress.
func (w *wire) ask(node int32, request kmsg.Request, most int16, maxFrame int) (kmsg.Response, error) {
	return w.try(context.Background(), node, request, most, maxFrame)
}

// fetch is ask with buffers for the answer.
func (w *wire) fetch(node int32, q question) (*reply, error) {
	return w.attempt(context.Background(), node, q)
}

// try is ask for callers that may give up: the exchange then goes on without
// them, and its answer is dropped. A connection that turns out to be gone is
// replaced once.
func (w *wire) try(ctx context.Context, node int32, request kmsg.Request, most int16, maxFrame int) (kmsg.Response, error) {
	r, err := w.attempt(ctx, node, question{request: request, most: most, maxFrame: maxFrame})
	if err != nil {
		return nil, err
	}
	return r.response, nil
}

func (w *wire) attempt(ctx context.Context, node int32, q question) (*reply, error) {
	where, addr := "any broker", w.seeds
	if node != anyBroker {
		where, addr = fmt.Sprintf("broker %d", node), w.addr(node)
	}
	err := errUnknownBroker
	for attempt := 1; addr != nil && attempt <= 2; attempt++ {
		e := &exchange{question: q, clientID: w.clientID}
		var r *reply
		if r, err = w.send(ctx, addr, e); err == nil {
			return r, nil
		}
		if !e.reached.Load() && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
			err = fmt.Errorf("%s: %w", w.hint, err)
			break
		}
		if !isGone(err) || w.network.isDown() {
			break
		}
	}
	return nil, fmt.Errorf("kafka: %s to %s: %w", kmsg.NameForKey(q.request.Key()), where, err)
}

var errUnknownBroker = errors.New("its address is not known")

func (w *wire) send(ctx context.Context, addr net.Addr, e *exchange) (*reply, error) {
	m, err := w.transport.RoundTrip(ctx, addr, e)
	if err != nil {
		return nil, refused(w.transport.SASL, err)
	}
	r, ok := m.(*reply)
	if !ok {
		return nil, fmt.Errorf("the transport answered %T", m)
	}
	return r, nil
}

// learn keeps where a broker is.
func (w *wire) learn(node int32, host string, port int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[node] = kafkago.TCP(net.JoinHostPort(host, strconv.Itoa(int(port))))
}

// redial closes the connections to a broker.
func (w *wire) redial(node int32) {
	if addr := w.addr(node); addr != nil {
		w.network.cutTo(addr.String())
	}
}

// addr is where a broker is, nil when nobody has told.
func (w *wire) addr(node int32) net.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[node]
}

// isGone says whether err is how a connection fails that the broker has closed
// while it was idle, or by being restarted.
func isGone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// closeAfter waits for the work of its owner, and closes. Work that takes longer than
// closeTimeout is ended by cutting its connections, and said.
func (w *wire) closeAfter(work *sync.WaitGroup) (err error) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		work.Wait()
		close(done)
	})
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		err = fmt.Errorf("kafka: closing took longer than %s: connections cut", closeTimeout)
		w.network.shut()
	}
	wg.Wait()
	w.close()
	return err
}

// close ends the transport's goroutines and connections. Nothing of ours may be
// under way any more: kafka-go would let it wait for ever.
func (w *wire) close() {
	w.network.refuse()
	w.transport.CloseIdleConnections()
	// What kafka-go still asks on its own account, its metadata, is cut.
	if !w.network.await(time.Second) {
		w.network.cut()
		w.network.await(time.Second)
	}
}
