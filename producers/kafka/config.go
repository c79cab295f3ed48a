package kafka

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"
)

// Defaults of a Config.
const (
	DefaultSessionTimeout    = 30 * time.Second
	DefaultRebalanceTimeout  = 30 * time.Second
	DefaultHeartbeatInterval = 3 * time.Second
	DefaultMetadataInterval  = 10 * time.Second
	DefaultCommitInterval    = time.Second
	DefaultMaxWait           = 250 * time.Millisecond
	DefaultMinBytes          = 1
	DefaultMaxBytes          = 8 << 20
	DefaultMaxPartitionBytes = 1 << 20
	DefaultMaxBatchBytes     = 64 << 20
	DefaultWindow            = 1000
	DefaultClientID          = "broadway"
)

// Start says where a partition begins for which the group has no committed
// offset. The zero value is [Earliest].
type Start struct {
	kind startKind
	at   time.Time
}

type startKind uint8

const (
	startEarliest startKind = iota
	startLatest
	startTime
)

// Earliest begins with the oldest message that the broker has.
func Earliest() Start { return Start{} }

// Latest begins with the first message after the partition was first assigned.
// That position is committed at once, so that a restart before the first message
// does not skip any. Partitions and topics that appear after the group, or this
// producer, has known what there was begin with their first message.
func Latest() Start { return Start{kind: startLatest} }

// At begins with the first message whose timestamp is not before t, or at the
// end when there is none. The position is committed at once, as with Latest.
func At(t time.Time) Start { return Start{kind: startTime, at: t} }

// String is "earliest", "latest" or the time.
func (s Start) String() string {
	switch s.kind {
	case startLatest:
		return "latest"
	case startTime:
		return s.at.Format(time.RFC3339Nano)
	}
	return "earliest"
}

// OutOfRange says what to do when the position of a partition does not exist at
// its leader: retention or a deletion overtook it, or the log was truncated.
// Whatever is chosen is logged, with both offsets, and counted: see
// [Producer.Stats].
type OutOfRange uint8

const (
	// Fail ends the pipeline with an error that names the partition and both
	// offsets. Nothing is committed. It is the default.
	Fail OutOfRange = iota
	// ResumeEarliest goes on with the oldest message that there is.
	ResumeEarliest
	// ResumeLatest goes on with the next message to come.
	ResumeLatest
)

// String is "fail", "earliest" or "latest".
func (o OutOfRange) String() string {
	names := [...]string{"fail", "earliest", "latest"}
	if int(o) < len(names) {
		return names[o]
	}
	return "unknown"
}

// Corrupt says what to do with a batch that cannot be decoded, after it was
// fetched three times with the same result: a wrong checksum, a malformed record, one that
// decompresses to more than MaxBatchBytes, a message format older than Kafka
// 0.11.
type Corrupt uint8

const (
	// StopPartition fetches no more of the partition, and says so in
	// [Producer.Health], until it is assigned anew. It is the default.
	StopPartition Corrupt = iota
	// SkipBatch passes over the batch. It is logged and counted: see
	// [Producer.Stats].
	SkipBatch
)

// Isolation says which messages of transactions are delivered.
type Isolation uint8

const (
	// ReadUncommitted delivers all, also those of aborted and open transactions.
	ReadUncommitted Isolation = iota
	// ReadCommitted delivers messages of committed transactions, and those
	// without one, up to the first transaction that is still open.
	ReadCommitted
)

// ForeignMetadata says what to do when the metadata of a commit of the group was
// written by another program. Each commit of a [Producer] carries its own there.
// Whatever is chosen is logged and counted: see [Producer.Stats].
type ForeignMetadata uint8

const (
	// OverwriteForeign goes on from the committed offset. It is the default: no
	// message depends on what others note there, as Kafka gives it no meaning,
	// and a group that is moved from another client must be able to begin.
	OverwriteForeign ForeignMetadata = iota
	// FailOnForeign ends the pipeline with an error that names the partition and
	// the offset. Nothing is committed there.
	FailOnForeign
)

// Config describes a [Producer]. Zero values mean the defaults that are stated.
type Config struct {
	// Brokers are the addresses to start from, host:port. Required.
	Brokers []string
	// Topics are what to consume. Required. A topic that does not exist yet is
	// waited for.
	Topics []string
	// Group is the consumer group. Required.
	Group string

	// StartAt is where partitions without a committed offset begin. Default
	// Earliest().
	StartAt Start
	// OutOfRange is the policy for positions that do not exist. Default Fail.
	OutOfRange OutOfRange
	// Corrupt is the policy for batches that cannot be decoded. Default
	// StopPartition.
	Corrupt Corrupt
	// Isolation is for topics with transactions. Default ReadUncommitted.
	Isolation Isolation

	// ForeignMetadata is the policy for commits that carry metadata of another
	// program. Default OverwriteForeign.
	ForeignMetadata ForeignMetadata

	// SessionTimeout is after how long without a sign of life the group gives a
	// member up. Default 30 s.
	SessionTimeout time.Duration
	// RebalanceTimeout is how long a rebalance waits for a member that finishes
	// its work. Default 30 s.
	RebalanceTimeout time.Duration
	// HeartbeatInterval is the time between signs of life, at most a third of
	// SessionTimeout. Default 3 s.
	HeartbeatInterval time.Duration
	// MetadataInterval is how often new topics, new partitions and new leaders
	// are looked for when nothing else asks. Default 10 s.
	MetadataInterval time.Duration

	// MaxWait is how long a broker may wait for MinBytes before it answers a
	// long poll, at most 5 s. It also delays stopping. Default 250 ms.
	MaxWait time.Duration
	// MinBytes is how many bytes make a long poll answer. Default 1.
	MinBytes int
	// MaxBytes bounds one response of a broker, all partitions together; a
	// first batch that is larger passes. Default 8 MiB.
	MaxBytes int
	// MaxPartitionBytes bounds one response's part of a partition, likewise.
	// Default 1 MiB.
	MaxPartitionBytes int
	// MaxBatchBytes is the largest batch that is accepted, as sent and as
	// decompressed; see Corrupt. One that is larger than it and MaxBytes together
	// is not read, and stops its partition under either policy. Default 64 MiB.
	MaxBatchBytes int

	// Window bounds, per partition, the messages that were handed out and are
	// not durably committed: it forces a commit, and the partition stops until
	// it succeeded. It is at least the pipeline's MaxUnsettled. Default 1000, or
	// four times MaxUnsettled if that is more.
	Window int
	// CommitInterval is the longest time between a settled prefix and its
	// commit. A commit is also made when a quarter of Window has settled.
	// Default 1 s.
	CommitInterval time.Duration

	// ClientID names this client in the broker's logs and quotas. Default
	// "broadway".
	ClientID string
	// Rack lets brokers direct fetches to a replica nearby.
	Rack string
	// TLS encrypts the connections. Nil means plain ones.
	TLS *tls.Config
	// SASL authenticates each connection. Nil means none.
	SASL *SASL
	// Logger defaults to slog.Default(). Payloads, keys, header values and
	// secrets are never logged.
	Logger *slog.Logger
}

// withDefaults is a copy of c with every default in place.
func (c Config) withDefaults() Config {
	c.SessionTimeout = cmp.Or(c.SessionTimeout, DefaultSessionTimeout)
	c.RebalanceTimeout = cmp.Or(c.RebalanceTimeout, DefaultRebalanceTimeout)
	c.HeartbeatInterval = cmp.Or(c.HeartbeatInterval, min(DefaultHeartbeatInterval, c.SessionTimeout/3))
	c.MetadataInterval = cmp.Or(c.MetadataInterval, DefaultMetadataInterval)
	c.MaxWait = cmp.Or(c.MaxWait, DefaultMaxWait)
	c.MinBytes = cmp.Or(c.MinBytes, DefaultMinBytes)
	c.MaxBytes = cmp.Or(c.MaxBytes, DefaultMaxBytes)
	c.MaxPartitionBytes = cmp.Or(c.MaxPartitionBytes, min(DefaultMaxPartitionBytes, c.MaxBytes))
	c.MaxBatchBytes = cmp.Or(c.MaxBatchBytes, DefaultMaxBatchBytes)
	c.CommitInterval = cmp.Or(c.CommitInterval, DefaultCommitInterval)
	c.ClientID = cmp.Or(c.ClientID, DefaultClientID)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// revokeBudget is how long a drain at a revoke may take: min(10 s, the
// rebalance time-out less a margin). The margin covers the heartbeat by which
// this member learns of the rebalance, the last commit, and the way back into
// the group.
func (c Config) revokeBudget() time.Duration {
	return min(10*time.Second, c.RebalanceTimeout-c.HeartbeatInterval-c.RebalanceTimeout/5)
}

// validate reports every mistake of c, which has its defaults.
func (c Config) validate() error {
	errs := validateBrokers(c.Brokers)
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("kafka: "+format, args...)) }
	if len(c.Topics) == 0 {
		bad("Topics: at least one is required")
	}
	seen := map[string]bool{}
	for _, topic := range c.Topics {
		if reason := topicMistake(topic); reason != "" {
			bad("Topics: %q %s", topic, reason)
		}
		if seen[topic] {
			bad("Topics: %q is listed twice", topic)
		}
		seen[topic] = true
	}
	if c.Group == "" {
		bad("Group: required")
	}
	if c.StartAt.kind > startTime || c.StartAt.kind == startTime && c.StartAt.at.UnixMilli() < 0 {
		bad("StartAt: %s lies before 1970", c.StartAt)
	}
	if c.OutOfRange > ResumeLatest {
		bad("OutOfRange: %d is no policy", c.OutOfRange)
	}
	if c.Corrupt > SkipBatch {
		bad("Corrupt: %d is no policy", c.Corrupt)
	}
	if c.ForeignMetadata > FailOnForeign {
		bad("ForeignMetadata: %d is no policy", c.ForeignMetadata)
	}
	if c.Isolation > ReadCommitted {
		bad("Isolation: %d is no level", c.Isolation)
	}
	errs = append(errs, c.validateTimes()...)
	errs = append(errs, c.validateSizes()...)
	if err := tlsMistake(c.TLS); err != nil {
		errs = append(errs, err)
	}
	if c.SASL != nil {
		errs = append(errs, c.SASL.validate()...)
	}
	return errors.Join(errs...)
}

// warn logs at the start what makes connections unsafe.
func warn(log *slog.Logger, encryption *tls.Config, login *SASL) {
	if login != nil && encryption == nil {
		log.Warn("kafka: authenticating without TLS", "mechanism", string(login.Mechanism))
	}
	if encryption != nil && encryption.InsecureSkipVerify {
		log.Warn("kafka: the server is not verified (InsecureSkipVerify): whoever is in between can read and change everything")
	}
}

// tlsMistake says what is wrong with versions: nil and zeros mean TLS 1.2 or later.
func tlsMistake(c *tls.Config) error {
	older := func(version uint16) bool { return version != 0 && version < tls.VersionTLS12 }
	if c != nil && (older(c.MinVersion) || older(c.MaxVersion)) {
		return errors.New("kafka: TLS: versions before 1.2 are not safe")
	}
	return nil
}

func (c Config) validateTimes() []error {
	var errs []error
	for _, d := range []struct {
		name     string
		value    time.Duration
		min, max time.Duration
	}{
		{"SessionTimeout", c.SessionTimeout, 100 * time.Millisecond, time.Hour},
		{"RebalanceTimeout", c.RebalanceTimeout, 100 * time.Millisecond, time.Hour},
		{"HeartbeatInterval", c.HeartbeatInterval, time.Millisecond, c.SessionTimeout / 3},
		{"MetadataInterval", c.MetadataInterval, 10 * time.Millisecond, time.Hour},
		{"MaxWait", c.MaxWait, time.Millisecond, 5 * time.Second},
		{"CommitInterval", c.CommitInterval, time.Millisecond, time.Hour},
	} {
		if d.value < d.min || d.value > d.max {
			errs = append(errs, fmt.Errorf("kafka: %s: %s is not within %s to %s", d.name, d.value, d.min, d.max))
		}
	}
	if c.revokeBudget() <= 0 {
		errs = append(errs, fmt.Errorf("kafka: RebalanceTimeout: %s leaves no time to finish work after a heartbeat of %s",
			c.RebalanceTimeout, c.HeartbeatInterval))
	}
	return errs
}

func (c Config) validateSizes() []error {
	var errs []error
	const most = 1 << 30
	for _, s := range []struct {
		name            string
		value, min, max int
	}{
		{"MinBytes", c.MinBytes, 1, c.MaxBytes},
		{"MaxBytes", c.MaxBytes, 1 << 10, most},
		{"MaxPartitionBytes", c.MaxPartitionBytes, 1 << 10, c.MaxBytes},
		{"MaxBatchBytes", c.MaxBatchBytes, 1 << 10, most},
		{"Window", c.Window, 0, most},
	} {
		if s.value < s.min || s.value > s.max {
			errs = append(errs, fmt.Errorf("kafka: %s: %d is not within %d to %d", s.name, s.value, s.min, s.max))
		}
	}
	return errs
}

func validateBrokers(brokers []string) []error {
	if len(brokers) == 0 {
		return []error{errors.New("kafka: Brokers: at least one is required")}
	}
	var errs []error
	for _, b := range brokers {
		host, port, err := net.SplitHostPort(b)
		if err != nil || host == "" || port == "" || strings.Contains(b, ",") {
			errs = append(errs, fmt.Errorf("kafka: Brokers: %q is not host:port", b))
		}
	}
	return errs
}

// topicMistake says what Kafka would not accept in a topic's name.
func topicMistake(topic string) string {
	legal := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)
	}
	switch {
	case topic == "", topic == ".", topic == "..":
		return "is not a topic's name"
	case len(topic) > 249:
		return "is longer than 249 bytes"
	case strings.IndexFunc(topic, func(r rune) bool { return !legal(r) }) >= 0:
		return "has characters other than letters, digits, '.', '_' and '-'"
	}
	return ""
}

// Secret is a password or a token. However it is printed, formatted or encoded,
// it shows as "***".
type Secret string

// String is "***".
func (Secret) String() string { return "***" }

// GoString is "***".
func (Secret) GoString() string { return "***" }

// Format prints "***" whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("***")) }

// LogValue is "***".
func (Secret) LogValue() slog.Value { return slog.StringValue("***") }

// MarshalText is "***".
func (Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }

// Credentials are what a connection authenticates with.
type Credentials struct {
	// Username and Password are for Plain, ScramSHA256 and ScramSHA512.
	Username string
	Password Secret
	// Token is for OAuthBearer; Extensions are sent with it.
	Token      Secret
	Extensions map[string]string
}

// Mechanism is a way of SASL authentication.
type Mechanism string

// The mechanisms.
const (
	Plain       Mechanism = "PLAIN"
	ScramSHA256 Mechanism = "SCRAM-SHA-256"
	ScramSHA512 Mechanism = "SCRAM-SHA-512"
	OAuthBearer Mechanism = "OAUTHBEARER"
)

// SASL authenticates connections.
type SASL struct {
	// Mechanism is required.
	Mechanism Mechanism
	// Credentials is asked at each dial, so that rotated passwords and renewed
	// tokens are used. It is called from several goroutines, and its context
	// ends with the dial's time limit. See StaticCredentials. Required.
	Credentials func(ctx context.Context) (Credentials, error)
}

// StaticCredentials always answers with the same username and password.
func StaticCredentials(username string, password Secret) func(context.Context) (Credentials, error) {
	return func(context.Context) (Credentials, error) {
		return Credentials{Username: username, Password: password}, nil
	}
}

func (s *SASL) validate() []error {
	var errs []error
	switch s.Mechanism {
	case Plain, ScramSHA256, ScramSHA512, OAuthBearer:
	default:
		errs = append(errs, fmt.Errorf("kafka: SASL: Mechanism: %q is not PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER", s.Mechanism))
	}
	if s.Credentials == nil {
		errs = append(errs, errors.New("kafka: SASL: Credentials: required"))
	}
	return errs
}
