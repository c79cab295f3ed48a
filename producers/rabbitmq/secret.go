package rabbitmq

import (
	"context"
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// Secret is text that does not print: neither in logs, nor by any verb of fmt,
// nor in JSON or YAML. Convert it to a string to use it.
type Secret string

// String is a placeholder.
func (Secret) String() string { return redacted }

// Format writes a placeholder for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue is a placeholder.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText is a placeholder.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Credentials are what a connection logs in with.
type Credentials struct {
	Username string
	Password Secret
	// External logs in by the client certificate of the TLS connection instead
	// (SASL EXTERNAL).
	External bool
}

// CredentialsProvider is asked at each dial, so that tokens and rotated
// passwords never go stale. Its context ends with the attempt to connect.
type CredentialsProvider func(ctx context.Context) (Credentials, error)

// Password is the provider of a name and a password that never change.
func Password(username string, password Secret) CredentialsProvider {
	return func(context.Context) (Credentials, error) {
		return Credentials{Username: username, Password: password}, nil
	}
}
