package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
)

// mechanism is what kafka-go authenticates each connection with. It asks the
// provider at every dial and keeps nothing but the last name, for errors.
type mechanism struct {
	cfg  SASL
	user atomic.Pointer[string]
}

// saslMechanism is nil for a nil config; kafka-go then does not authenticate.
func saslMechanism(cfg *SASL) sasl.Mechanism {
	if cfg == nil {
		return nil
	}
	return &mechanism{cfg: *cfg}
}

// Name is the mechanism's registered name.
func (m *mechanism) Name() string { return string(m.cfg.Mechanism) }

// Start begins one authentication: the state, and the client's first message.
func (m *mechanism) Start(ctx context.Context) (sasl.StateMachine, []byte, error) {
	c, err := m.cfg.Credentials(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("kafka: no credentials: %w", err)
	}
	m.user.Store(&c.Username)
	switch m.cfg.Mechanism {
	case Plain:
		return startPlain(c)
	case ScramSHA256, ScramSHA512:
		return startScram(m.cfg.Mechanism, c)
	default:
		return startBearer(c)
	}
}

// refused says in err who it was that the broker does not let in, where m was asked.
func refused(m sasl.Mechanism, err error) error {
	ours, ok := m.(*mechanism)
	if !ok || !errors.Is(err, kafkago.SASLAuthenticationFailed) {
		return err
	}
	if user := ours.user.Load(); user != nil && *user != "" {
		return fmt.Errorf("log in as user %q: %w", *user, err)
	}
	return err
}

type plain struct{}

// startPlain is RFC 4616.
func startPlain(c Credentials) (sasl.StateMachine, []byte, error) {
	if strings.ContainsRune(c.Username, 0) || strings.ContainsRune(string(c.Password), 0) {
		return nil, nil, errors.New("kafka: credentials with a NUL byte")
	}
	return plain{}, []byte("\x00" + c.Username + "\x00" + string(c.Password)), nil
}

// Next accepts whatever the server says: it closes the connection otherwise.
func (plain) Next(context.Context, []byte) (bool, []byte, error) { return true, nil, nil }

// bearer is RFC 7628. refused is the server's reason, once it gave one.
type bearer struct{ refused error }

func startBearer(c Credentials) (sasl.StateMachine, []byte, error) {
	if c.Token == "" || strings.ContainsRune(string(c.Token), 1) {
		return nil, nil, errors.New("kafka: credentials without a valid Token")
	}
	var b strings.Builder
	b.WriteString("n,,\x01auth=Bearer " + string(c.Token) + "\x01")
	for _, name := range slices.Sorted(maps.Keys(c.Extensions)) {
		value := c.Extensions[name]
		if name == "" || name == "auth" || strings.ContainsAny(name, "\x01=") || strings.ContainsRune(value, 1) {
			return nil, nil, fmt.Errorf("kafka: extension %q is malformed", name)
		}
		b.WriteString(name + "=" + value + "\x01")
	}
	b.WriteString("\x01")
	return &bearer{}, []byte(b.String()), nil
}

// Next ends well when the server has nothing to say. Otherwise it said why it
// refuses, and must be answered once before it fails the authentication.
func (b *bearer) Next(_ context.Context, challenge []byte) (bool, []byte, error) {
	switch {
	case b.refused != nil:
		return false, nil, b.refused
	case len(challenge) == 0:
		return true, nil, nil
	}
	b.refused = fmt.Errorf("kafka: the broker refused the token: %.200q", challenge)
	return false, []byte{1}, nil
}
