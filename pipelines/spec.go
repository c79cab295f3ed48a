package pipelines

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// The keys of a file. The upper limits keep a mistyped number from being taken
// as an order for that many goroutines, or for that much memory.

type fileSpec struct {
	Pipelines []Section `yaml:"pipelines"`
}

type pipelineSpec struct {
	Name              string                 `yaml:"name"`
	Producers         []oneOf                `yaml:"producers"`
	Processor         processorSpec          `yaml:"processor"`
	Batchers          map[string]batcherSpec `yaml:"batchers"`
	Failure           failureSpec            `yaml:"failure"`
	MessageLimits     messageLimits          `yaml:"message_limits"`
	MaxUnsettled      int                    `yaml:"max_unsettled" max:"10000000"`
	MaxUnsettledBytes Size                   `yaml:"max_unsettled_bytes"`
	DrainTimeout      time.Duration          `yaml:"drain_timeout"`
	FailFast          bool                   `yaml:"fail_fast"`
	ReconnectBackoff  Backoff                `yaml:"reconnect_backoff"`
}

type processorSpec struct {
	Handler     string        `yaml:"handler"`
	Concurrency int           `yaml:"concurrency" max:"4096"`
	MaxDemand   int           `yaml:"max_demand" max:"1000000"`
	MinDemand   int           `yaml:"min_demand" max:"1000000"`
	Timeout     time.Duration `yaml:"timeout"`
	MaxStuck    orNone        `yaml:"max_stuck"`
	RetryStuck  bool          `yaml:"retry_stuck"`
	PartitionBy string        `yaml:"partition_by"`
	Unordered   bool          `yaml:"unordered"`
}

type batcherSpec struct {
	Reporter      string        `yaml:"reporter"`
	Concurrency   int           `yaml:"concurrency" max:"4096"`
	Size          int           `yaml:"size" max:"1000000"`
	Bytes         Size          `yaml:"bytes"`
	Timeout       Interval      `yaml:"timeout"`
	KeyBy         string        `yaml:"key_by"`
	Policy        string        `yaml:"policy"`
	ReportTimeout time.Duration `yaml:"report_timeout"`
	MaxStuck      orNone        `yaml:"max_stuck"`
	RetryStuck    bool          `yaml:"retry_stuck"`
}

// orNone is a number from 1, or -1 for the word "none".
type orNone int

// maxStuck is the most that a file may say.
const maxStuck = 4096

// UnmarshalText reads a number, or "none".
func (n *orNone) UnmarshalText(text []byte) error {
	if string(text) == "none" {
		*n = -1
		return nil
	}
	v, err := strconv.Atoi(string(text))
	if err != nil || v < 1 || v > maxStuck {
		return fmt.Errorf("must be a whole number from 1 to %d, or none", maxStuck)
	}
	*n = orNone(v)
	return nil
}

type failureSpec struct {
	MaxAttempts int        `yaml:"max_attempts" max:"1000"`
	Backoff     Backoff    `yaml:"backoff"`
	Action      action     `yaml:"action"`
	DeadLetter  nameOrKind `yaml:"dead_letter"`
	// Of dead letters to a publisher that the file describes.
	DeadLetterMaxBytes Size   `yaml:"dead_letter_max_bytes"`
	DeadLetterSpill    string `yaml:"dead_letter_spill"`
	Unavailable        string `yaml:"unavailable"`
}

type messageLimits struct {
	Payload     limit `yaml:"payload"`
	Key         limit `yaml:"key"`
	Headers     count `yaml:"headers"`
	HeaderBytes limit `yaml:"header_bytes"`
}

func (s *messageLimits) limits() broadway.MessageLimits {
	return broadway.MessageLimits{
		Payload: int64(s.Payload), Key: int(s.Key), Headers: int(s.Headers), HeaderBytes: int(s.HeaderBytes),
	}
}

// limit is a Size of at most 1 GiB that may be "off", which it has as -1.
type limit Size

// UnmarshalText reads a size, or "off".
func (l *limit) UnmarshalText(text []byte) error {
	if string(text) == "off" {
		*l = -1
		return nil
	}
	var s Size
	if err := s.UnmarshalText(text); err != nil {
		return fmt.Errorf("%w, or off", err)
	}
	if s > 1<<30 {
		return errors.New("the size must be at most 1GiB, or off")
	}
	*l = limit(s)
	return nil
}

// count is a number that may be "off", which it has as -1.
type count int

// UnmarshalText reads a number, or "off".
func (c *count) UnmarshalText(text []byte) error {
	if string(text) == "off" {
		*c = -1
		return nil
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 1 || n > 1_000_000 {
		return errors.New("want a number between 1 and 1000000, or off")
	}
	*c = count(n)
	return nil
}

// action is a broadway.Action by its name.
type action broadway.Action

// UnmarshalText reads the name of an action.
func (a *action) UnmarshalText(text []byte) error {
	list := ""
	for known := broadway.ActionDeadLetter; known <= broadway.ActionStopPipeline; known++ {
		if known.String() == string(text) {
			*a = action(known)
			return nil
		}
		list += ", " + known.String()
	}
	return fmt.Errorf("there is no action %q; there are %s", excerpt(string(text)), list[2:])
}

// batcherNames are the names of batchers in the order of the file.
func (d *document) batcherNames(batchers map[string]batcherSpec, path string) []string {
	list := slices.Collect(maps.Keys(batchers))
	places := make(map[string]place, len(list))
	for _, name := range list {
		places[name] = d.places[join(path, element(name))]
	}
	slices.SortFunc(list, func(a, b string) int {
		p, q := places[a], places[b]
		return cmp.Or(cmp.Compare(p.line, q.line), cmp.Compare(p.column, q.column), cmp.Compare(a, b))
	})
	return list
}
