package scenario

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/producers/kafka"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// canary is the password that nobody may get, and no log may show.
const canary = "canary-5b21e8"

// tlsCase is one way in which TLS can be wrong. A server of nil speaks no TLS, nor does a client of nil.
type tlsCase struct {
	name           string
	server, client *tls.Config
	// insecure is not wrong for the client, which verifies nobody: it must be said in the log.
	insecure bool
}

// tlsCases are what is wrong with a server or its certificate, the last of them in both directions, and what switches verification off.
func tlsCases() ([]tlsCase, error) {
	const name = "server.test"
	known, errKnown := rig.NewAuthority()
	stranger, errStranger := rig.NewAuthority()
	if err := errors.Join(errKnown, errStranger); err != nil {
		return nil, err
	}
	var errs []error
	signed := func(a *rig.Authority, name string, from, to time.Duration) *tls.Config {
		certificate, err := a.Sign(name, from, to)
		errs = append(errs, err)
		return &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS10}
	}
	client := &tls.Config{RootCAs: known.Pool(), ServerName: name}
	good := signed(known, name, -time.Hour, time.Hour)
	old := good.Clone()
	old.MaxVersion = tls.VersionTLS11
	mutual := good.Clone()
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, known.Pool()
	mutual12 := mutual.Clone()
	mutual12.MaxVersion = tls.VersionTLS12
	foreign := signed(stranger, name, -time.Hour, time.Hour)
	cases := []tlsCase{
		{name: "unknown authority", server: foreign, client: client},
		{name: "expired", server: signed(known, name, -2*time.Hour, -time.Hour), client: client},
		{name: "wrong host name", server: signed(known, "other.test", -time.Hour, time.Hour), client: client},
		{name: "not yet valid", server: signed(known, name, time.Hour, 2*time.Hour), client: client},
		{name: "TLS 1.1 only", server: old, client: client},
		{name: "client certificate missing, TLS 1.3", server: mutual, client: client},
		{name: "client certificate missing, TLS 1.2", server: mutual12, client: client},
		{name: "plain server", client: client},
		{name: "plain client", server: good},
		{name: "nothing verified", server: foreign, client: &tls.Config{InsecureSkipVerify: true}, insecure: true},
	}
	return cases, errors.Join(errs...)
}

// wrongTLS is G3: servers that must not be trusted hear nothing that matters; and real brokers, that may be, work.
func wrongTLS(ctx context.Context, env *Env) (*Outcome, error) {
	cases, err := tlsCases()
	if err != nil {
		return nil, err
	}
	outcome := new(Outcome)
	var mu sync.Mutex
	var trying sync.WaitGroup
	for _, c := range cases {
		for _, kind := range []string{"kafka", "rabbitmq"} {
			trying.Go(func() {
				missed, failure := c.try(ctx, kind, env.For(20*time.Second, 4*time.Second))
				mu.Lock()
				defer mu.Unlock()
				err = errors.Join(err, failure)
				for _, m := range missed {
					outcome.Must(false, "%s, %s: %s", kind, c.name, m)
				}
			})
		}
	}
	trying.Wait()
	if err != nil {
		return outcome, err
	}
	outcome.Note("%d cases of wrong TLS, a consumer and a publisher of either broker, against servers that ask them to log in: refused, no byte of a password sent; "+
		"verifying nobody, the same servers got it, and the log warned", len(cases)-1)
	return outcome, rightTLS(ctx, env, outcome)
}

// try lets a pipeline and a publisher connect to the server for a while, and says what is wrong.
func (c tlsCase) try(ctx context.Context, kind string, length time.Duration) (missed []string, err error) {
	ask := rig.AskAMQP
	if kind == "kafka" {
		ask = rig.AskKafka
	}
	server, err := rig.Pretend(c.server, ask)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	log := new(logBuffer)
	to := target{kind: kind, addr: server.Addr(), vhost: "/", user: "user", password: canary, source: "t", tls: c.client}
	side, err := newSecured(to, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var publishing sync.WaitGroup
	var published, ran error
	connected := true
	publishing.Go(func() {
		published = side.publisher.Publish(ctx, broadway.Record{Destination: "t", Payload: []byte("m")})
	})
	publishing.Go(func() {
		<-ctx.Done()
		connected = side.pipeline.Stats().Producers[0].Connected
	})
	ran = side.pipeline.Run(ctx)
	publishing.Wait()
	if err := side.publisher.Close(); err != nil {
		return nil, err
	}
	heard, conns, handshakes := server.Heard()
	must := func(ok bool, format string, args ...any) {
		if !ok {
			missed = append(missed, fmt.Sprintf(format, args...))
		}
	}
	logged := log.Bytes()
	must(published != nil, "a record was published")
	must(!connected, "the consumer is connected")
	must(conns >= 2, "%d connections were tried", conns)
	for where, text := range map[string][]byte{"log": logged, "errors": fmt.Append(nil, published, ran)} {
		must(!bytes.Contains(text, []byte(canary)), "the password is in the %s", where)
	}
	// Whoever asks for it within a connection that was not to be verified gets it: the servers do ask.
	must(c.insecure == bytes.Contains(heard, []byte(canary)), "the server got the password: %v", !c.insecure)
	must(c.insecure == bytes.Contains(logged, []byte("not verified")), "the log's warning that nothing is verified: %v", !c.insecure)
	if c.insecure {
		must(handshakes >= 2, "%d handshakes, though nothing is verified", handshakes)
		return missed, nil
	}
	must(handshakes == 0, "%d handshakes were completed", handshakes)
	must(len(logged) > 0, "nothing was logged")
	return missed, nil
}

// logBuffer is a log that is read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write appends.
func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// Bytes is what was logged.
func (l *logBuffer) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.text.Bytes())
}

// secured is a consumer and a publisher of this process.
type secured struct {
	pipeline  *broadway.Pipeline
	publisher broadway.Publisher
	handled   chan []byte
}

// target is a broker, who logs in there, and the topic or queue.
type target struct {
	kind, addr, vhost, user, password, source string
	tls                                       *tls.Config
}

// newSecured makes a consumer and a publisher of t. No user: no SASL, on Kafka.
func newSecured(t target, log *slog.Logger) (*secured, error) {
	s := &secured{handled: make(chan []byte, 16)}
	var producer broadway.Producer
	if t.kind == "kafka" {
		var sasl *kafka.SASL
		if t.user != "" {
			sasl = &kafka.SASL{Mechanism: kafka.Plain, Credentials: kafka.StaticCredentials(t.user, kafka.Secret(t.password))}
		}
		brokers := []string{t.addr}
		producer = kafka.NewProducer(kafka.Config{Brokers: brokers, Topics: []string{t.source}, Group: t.source, TLS: t.tls, SASL: sasl, Logger: log})
		s.publisher = kafka.NewPublisher(kafka.PublisherConfig{Brokers: brokers, TLS: t.tls, SASL: sasl, Logger: log})
	} else {
		host, text, err := net.SplitHostPort(t.addr)
		if err != nil {
			return nil, err
		}
		port, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		login := rabbitmq.Password(t.user, rabbitmq.Secret(t.password))
		producer = rabbitmq.NewProducer(rabbitmq.Config{Host: host, Port: port, VHost: t.vhost, Queue: t.source, TLS: t.tls, Credentials: login, Logger: log})
		s.publisher = rabbitmq.NewPublisher(rabbitmq.PublisherConfig{Host: host, Port: port, VHost: t.vhost, TLS: t.tls, Credentials: login, Logger: log})
	}
	cfg := broadway.Config{Name: "secured", Producers: []broadway.Producer{producer}, Logger: log}
	cfg.Processor.Handler = func(_ context.Context, m *broadway.Message) error {
		s.handled <- m.Payload
		return nil
	}
	cfg.Failure.Action = broadway.ActionDrop
	var err error
	s.pipeline, err = broadway.New(cfg)
	return s, err
}

// rightTLS shows that it is not TLS as such that is refused: a message goes through either real broker, and back.
func rightTLS(ctx context.Context, env *Env, outcome *Outcome) error {
	name, _, err := env.newRun()
	if err != nil {
		return err
	}
	kafkaRig, err := env.Kafka()
	if err != nil {
		return err
	}
	rabbit, err := env.RabbitMQ()
	if err != nil {
		return err
	}
	if err := errors.Join(kafkaRig.CreateTopic(ctx, name, 1, nil), rabbit.CreateQueue(name, nil)); err != nil {
		return err
	}
	overKafka, overRabbit := target{kind: "kafka", source: name}, target{kind: "rabbitmq", source: name}
	if overKafka.addr, overKafka.tls, err = kafkaRig.TLS(); err != nil {
		return err
	}
	address, config, err := rabbit.TLS()
	if err != nil {
		return err
	}
	parsed, err := url.Parse(address)
	if err != nil {
		return errors.New("the broker's URL does not parse") // the error would quote the password
	}
	overRabbit.addr, overRabbit.vhost, overRabbit.tls = parsed.Host, strings.TrimPrefix(parsed.Path, "/"), config
	overRabbit.user = parsed.User.Username()
	overRabbit.password, _ = parsed.User.Password()
	for _, over := range []target{overKafka, overRabbit} {
		if err := over.roundTrip(ctx, outcome); err != nil {
			return fmt.Errorf("%s: %w", over.kind, err)
		}
	}
	return nil
}

// roundTrip publishes one message and consumes it, both over TLS.
func (t target) roundTrip(ctx context.Context, outcome *Outcome) (err error) {
	log := new(logBuffer)
	s, err := newSecured(t, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("no message over TLS within 30s"))
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { err = errors.Join(err, s.pipeline.Run(ctx)) })
	sent := []byte("over TLS")
	failure := s.publisher.Publish(ctx, broadway.Record{Destination: t.source, Payload: sent})
	if failure == nil {
		select {
		case got := <-s.handled:
			outcome.Must(bytes.Equal(got, sent), "%s over TLS: another message came", t.kind)
		case <-ctx.Done():
			failure = context.Cause(ctx)
		}
	}
	stop()
	running.Wait()
	outcome.Must(t.password == "" || !bytes.Contains(log.Bytes(), []byte(t.password)), "%s over TLS: the password is in the log", t.kind)
	return errors.Join(err, failure, s.publisher.Close())
}
