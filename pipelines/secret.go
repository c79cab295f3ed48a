package pipelines

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"runtime"
	"strings"
)

// maxSecretBytes bounds the file of a secret.
const maxSecretBytes = 64 << 10

// Secret is a password or token that a file names but does not have: a field
// with the tag `yaml:"password"` is written as password_file (a file, without
// its last line break; a relative name starts at the pipeline file's folder) or
// password_env (an environment variable). Loading checks that there is a value;
// the value is read anew by each Read, so a rotated file is noticed.
//
// However it is printed or encoded, a Secret shows as "***".
type Secret struct{ read func() (string, error) }

// Set says whether the file names the secret.
func (s Secret) Set() bool { return s.read != nil }

// Read is the value as it is now. Its errors have neither the value nor the name
// of the file or variable, in case somebody put the secret in their place.
func (s Secret) Read() (string, error) {
	if s.read == nil {
		return "", errors.New("pipelines: the secret is not set")
	}
	value, err := s.read()
	if err != nil {
		return "", fmt.Errorf("pipelines: the secret cannot be read: %w", err)
	}
	return value, nil
}

const hidden = "***"

// Format prints "***" whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// MarshalText is "***".
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// MarshalYAML is "***".
func (Secret) MarshalYAML() (any, error) { return hidden, nil }

// LogValue is "***".
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// secretKey says which of the keys of a secret a key is.
type secretKey uint8

const (
	secretNone secretKey = iota
	secretPlain
	secretFile
	secretEnv
)

// secret fills the Secret of f from one of its keys. Messages show no values:
// people put passwords where a name belongs.
func (d *document) secret(f field, e entry, path string, depth int) {
	if f.secret == secretPlain {
		d.fail(placeOf(e.key), path, "secrets do not belong into this file: use %s_file or %s_env", e.name, e.name)
		return
	}
	n, ok := d.follow(e.value, path, depth+1)
	if !ok {
		return
	}
	if n.ShortTag() != "!!str" || n.Value == "" {
		d.fail(placeOf(n), path, "want the name of %s, as text", map[secretKey]string{secretFile: "a file", secretEnv: "an environment variable"}[f.secret])
		return
	}
	if f.value.Interface().(Secret).Set() {
		d.fail(placeOf(e.key), path, "the secret is named twice: use either _file or _env")
		return
	}
	if base := strings.TrimSuffix(strings.TrimSuffix(path, "_file"), "_env"); d.places[base] == (place{}) {
		d.places[base] = placeOf(e.key) // where mistakes in the secret itself are reported
	}
	s := Secret{read: func() (string, error) { return readEnv(n.Value) }}
	if f.secret == secretFile {
		name := d.resolve(n.Value)
		s.read = func() (string, error) { return readSecretFile(name) }
		d.warnReadable(name, path, placeOf(n))
	}
	if _, err := s.read(); err != nil {
		d.fail(placeOf(n), path, "%s", err)
	}
	f.value.Set(reflect.ValueOf(s))
}

func readEnv(name string) (string, error) {
	value := os.Getenv(name)
	if value == "" {
		return "", errors.New("the environment variable is not set, or empty")
	}
	return value, nil
}

func readSecretFile(name string) (string, error) {
	data, err := readBounded(name, maxSecretBytes)
	if err != nil {
		return "", withoutPath(err)
	}
	if len(data) > maxSecretBytes {
		return "", fmt.Errorf("the file is larger than %d KiB", maxSecretBytes>>10)
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if value == "" {
		return "", errors.New("the file is empty")
	}
	return value, nil
}

// withoutPath is what is wrong with a file, without its name.
func withoutPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("the file cannot be read: %w", p.Err)
	}
	return errors.New("the file cannot be read")
}

// warnReadable records a secret that every user of the machine can read.
func (d *document) warnReadable(name, path string, at place) {
	info, err := os.Stat(name)
	if err != nil || runtime.GOOS == "windows" || info.Mode().Perm()&0o004 == 0 {
		return // what cannot be read is reported as a mistake; Windows has no such bits
	}
	d.warn(at, path, "every user of this machine can read the file: chmod o-r it")
}
