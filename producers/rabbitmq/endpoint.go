package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/broadway"
)

// maxFrame is the largest frame that is offered to the broker, which may lower
// it: RabbitMQ's own default, in bytes.
const maxFrame = 131072

// Error is what the broker says when it refuses something.
type Error struct {
	// Code is the reply code of AMQP 0-9-1, such as 404 or 406.
	Code int
	// Reason is the broker's text.
	Reason string
}

// Error is the broker's text and code.
func (e *Error) Error() string { return fmt.Sprintf("%s (%d)", e.Reason, e.Code) }

// plain replaces the client's error type by this package's own, where err is
// nothing more than that.
func plain(err error) error {
	var e *amqp.Error
	if errors.As(err, &e) {
		return &Error{Code: e.Code, Reason: e.Reason}
	}
	return err
}

// endpoint is where and how to connect.
type endpoint struct {
	host        string
	port        int
	vhost       string
	credentials CredentialsProvider
	tls         *tls.Config
	name        string

	dialTimeout  time.Duration
	closeTimeout time.Duration
	heartbeat    time.Duration

	maxHeld int64 // bytes of messages that are not settled, 0 for no bound: see gate
}

// String is the address and virtual host, without credentials.
func (e endpoint) String() string {
	scheme := "amqp"
	if e.tls != nil {
		scheme = "amqps"
	}
	return scheme + "://" + e.addr() + "/" + url.PathEscape(strings.TrimPrefix(e.vhost, "/"))
}

func (e endpoint) addr() string { return net.JoinHostPort(e.host, strconv.Itoa(e.port)) }

// resolve completes e from address, or else with defaults, and returns all
// mistakes.
func (e *endpoint) resolve(address string) []error {
	var errs []error
	if address != "" {
		if e.host != "" || e.port != 0 || e.vhost != "" {
			errs = append(errs, mistake("URL", "stands in place of Host, Port and VHost; do not set both"))
		}
		errs = append(errs, e.parse(address)...)
	}
	e.host, e.vhost = or(e.host, "localhost"), or(e.vhost, "/")
	if e.port == 0 {
		e.port = DefaultPort
		if e.tls != nil {
			e.port = DefaultTLSPort
		}
	}
	if e.port < 1 || e.port > 65535 {
		errs = append(errs, mistake("Port", "%d is not between 1 and 65535", e.port))
	}
	if e.tls != nil && (older(e.tls.MinVersion) || older(e.tls.MaxVersion)) {
		errs = append(errs, mistake("TLS", "versions before 1.2 are not safe"))
	}
	errs = append(errs, nameMistake("VHost", e.vhost)...)
	errs = append(errs, durationMistake("DialTimeout", e.dialTimeout, false)...)
	errs = append(errs, durationMistake("CloseTimeout", e.closeTimeout, false)...)
	if e.heartbeat < time.Second || e.heartbeat > 65535*time.Second {
		errs = append(errs, mistake("Heartbeat", "%v is not between 1s and 65535s", e.heartbeat))
	}
	if e.credentials == nil {
		e.credentials = Password("guest", "guest")
	}
	return errs
}

// older says whether a version of TLS is set, and older than 1.2.
func older(version uint16) bool { return version != 0 && version < tls.VersionTLS12 }

// warn logs at the start what makes a connection unsafe.
func (e *endpoint) warn(log *slog.Logger) {
	if e.tls != nil && e.tls.InsecureSkipVerify {
		log.Warn("rabbitmq: the server is not verified (InsecureSkipVerify): whoever is in between can read and change everything",
			"broker", e.String())
	}
}

// parse reads a URL. Its errors never quote it: where a password is not escaped,
// any part of the URL may be a part of the password.
func (e *endpoint) parse(address string) []error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "amqp" && u.Scheme != "amqps" || u.Opaque != "" {
		return []error{mistake("URL", "is not amqp://user:password@host:port/vhost "+
			"(special characters in user, password and vhost must be percent-encoded)")}
	}
	var errs []error
	if u.RawQuery != "" || u.Fragment != "" {
		errs = append(errs, mistake("URL", `has options after a "?" or "#": set the fields Heartbeat, DialTimeout, TLS and Credentials instead`))
	}
	e.host, e.vhost = u.Hostname(), strings.TrimPrefix(u.Path, "/")
	if port := u.Port(); port != "" {
		if e.port, err = strconv.Atoi(port); err != nil || e.port == 0 {
			errs = append(errs, mistake("URL", "has a port that is not between 1 and 65535"))
		}
	}
	if u.Scheme == "amqps" && e.tls == nil {
		e.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if u.User != nil && e.credentials == nil {
		password, _ := u.User.Password()
		e.credentials = Password(u.User.Username(), Secret(password))
	}
	return errs
}

// link is one connection: the client's, and the socket under it, which cut
// closes whatever the client is waiting for.
type link struct {
	conn   *amqp.Connection
	socket net.Conn
	gate   *gate
	frames *frames
}

// dial connects, logs in and opens the virtual host, until ctx ends.
func (e *endpoint) dial(ctx context.Context) (*link, error) {
	credentials, err := e.credentials(ctx)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	dialer := net.Dialer{KeepAlive: 15 * time.Second}
	socket, err := dialer.DialContext(ctx, "tcp", e.addr())
	if err != nil {
		return nil, err
	}
	// The client knows no contexts: closing the socket under it is what ends a
	// handshake that ctx does not wait for any longer.
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	l := &link{socket: socket, gate: &gate{limit: e.maxHeld}}
	err = e.handshake(ctx, l, credentials)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = socket.Close() // ends the client's goroutines, too
		if err = plain(err); refusesUser(err) {
			err = fmt.Errorf("log in as user %q: %w", credentials.Username, err)
		}
		return nil, err
	}
	return l, nil
}

// refusesUser says that the broker does not let this user in, or not into the virtual
// host.
func refusesUser(err error) bool {
	const accessRefused, notAllowed = 403, 530
	var e *Error
	return errors.As(err, &e) && (e.Code == accessRefused || e.Code == notAllowed)
}

func (e *endpoint) handshake(ctx context.Context, l *link, c Credentials) (err error) {
	socket := l.socket
	if e.tls != nil {
		config := e.tls.Clone()
		config.ServerName = or(config.ServerName, e.host)
		client := tls.Client(socket, config)
		if err := client.HandshakeContext(ctx); err != nil {
			return err
		}
		socket = client
	}
	var auth amqp.Authentication = &amqp.PlainAuth{Username: c.Username, Password: string(c.Password)}
	if c.External {
		auth = &amqp.ExternalAuth{}
	}
	properties := amqp.Table{"product": "gobroadway", "platform": "golang"}
	properties.SetClientConnectionName(e.name)
	// Recovery stays nil: a channel that is reborn under the same object would
	// take acknowledgements of its former deliveries for those of new ones.
	conn := &gatedConn{conn: socket, gate: l.gate}
	l.frames = &frames{conn: conn}
	l.conn, err = amqp.Open(l.frames, amqp.Config{
		SASL: []amqp.Authentication{auth}, Vhost: e.vhost, Heartbeat: e.heartbeat,
		FrameSize: maxFrame, Properties: properties, Locale: "en_US",
	})
	if err != nil {
		return err
	}
	// What both sides agreed on; a broker sends one in each half of it.
	heartbeat := l.conn.Config.Heartbeat
	return conn.expect(heartbeat + heartbeat/2)
}

// connect makes one attempt to get a link that begin has made something of. All
// of it is bounded by the dial time-out.
func connect[T any](ctx context.Context, e *endpoint, begin func(*link) (T, error)) (T, error) {
	var none T
	ctx, cancel := context.WithTimeoutCause(ctx, e.dialTimeout, fmt.Errorf("no answer within %v", e.dialTimeout))
	defer cancel()
	l, err := e.dial(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return none, fmt.Errorf("connect to %v: %w", e, err)
	}
	stop := context.AfterFunc(ctx, l.cut)
	made, err := begin(l)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		if late := l.close(e.closing()); late != nil {
			err = fmt.Errorf("%w (then, closing the connection: %w)", err, late)
		}
		return none, fmt.Errorf("%v: %w", e, err)
	}
	return made, nil
}

// closing is when the end of a connection that ends now must be over.
func (e *endpoint) closing() time.Time { return time.Now().Add(e.closeTimeout) }

// sleep waits before the next attempt to connect, after as many failed ones, and
// says whether to make it. The first is made at once; interrupt ends the wait.
func sleep(ctx context.Context, b broadway.Backoff, failed int, interrupt <-chan struct{}) bool {
	if failed == 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(b.Delay(failed, rand.Float64()))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-interrupt:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// cut closes the socket. Whatever waits for the broker on this link returns.
func (l *link) cut() {
	_ = l.socket.Close()
	l.gate.open()
}

// guarded runs do, and cuts the link when that takes longer than limit: neither
// an RPC nor a write of the client ends otherwise as long as the broker sends
// heartbeats.
func (l *link) guarded(limit time.Duration, do func() error) error {
	timer := time.AfterFunc(limit, l.cut)
	err := plain(do())
	if !timer.Stop() {
		return errors.Join(fmt.Errorf("no answer within %v", limit), err)
	}
	return err
}

// answered is guarded for calls that wait for an answer of the broker: it must not be
// held up behind messages that nobody reads yet.
func (l *link) answered(limit time.Duration, do func() error) error {
	l.gate.open()
	defer l.gate.shut()
	return l.guarded(limit, do)
}

// close ends the connection in good order, or at the deadline by force. An
// ended one is no error.
func (l *link) close(deadline time.Time) error {
	l.gate.open()
	defer l.cut()
	return l.guarded(time.Until(deadline), func() error {
		if err := l.conn.Close(); !errors.Is(err, amqp.ErrClosed) {
			return err
		}
		return nil
	})
}
