package pipelines_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/pipelines"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// feed is a source with a broker, and with a key of every type.
type feed struct {
	broadway.Producer
	cfg feedConfig
}

type feedConfig struct {
	URL      string           `yaml:"url"`
	Tags     []string         `yaml:"tags"`
	Every    time.Duration    `yaml:"every"`
	Page     pipelines.Size   `yaml:"page"`
	Priority int8             `yaml:"priority" allow:"negative"`
	Offset   *uint16          `yaml:"offset" allow:"zero"`
	Ratio    float64          `yaml:"ratio"`
	Verbose  bool             `yaml:"verbose"`
	Password pipelines.Secret `yaml:"password"`
	Limits   map[string]int   `yaml:"limits"`
	Extra    map[string]any   `yaml:"extra"`
	feedAuth `yaml:",inline"`
	Fetched  int // no key has it
}

type feedAuth struct {
	Token pipelines.Secret `yaml:"token"`
}

// Describe implements broadway.Describer.
func (f *feed) Describe(broadway.Limits) broadway.Traits {
	return broadway.Traits{
		Kind: "feed", Name: f.cfg.URL, Broker: true, AckTimeout: 30 * time.Minute,
		Actions: broadway.ActionSet(broadway.ActionReject, broadway.ActionRequeue),
	}
}

// Validate implements broadway.Validator, with mistakes as the producers of this
// module report theirs.
func (f *feed) Validate() error {
	var errs []error
	if f.cfg.URL == "" {
		errs = append(errs, errors.New("feed: URL: required"))
	}
	for i, tag := range f.cfg.Tags {
		if slices.Index(f.cfg.Tags, tag) != i {
			errs = append(errs, fmt.Errorf("feed: Tags: %q is listed twice", tag))
		}
	}
	return errors.Join(errs...)
}

// program is what a program registers: something of everything.
func program() *pipelines.Registry {
	r := pipelines.NewRegistry()
	r.Logger(slog.New(slog.DiscardHandler))
	r.Source("feed", func(s *pipelines.Section) (broadway.Producer, error) {
		f := &feed{Producer: memory.New(memory.Config{})}
		if err := s.Decode(&f.cfg); err != nil {
			return nil, err
		}
		return f, nil
	})
	r.Source("broken", func(*pipelines.Section) (broadway.Producer, error) { return nil, errors.New("out of order") })
	r.Queue("inbox", memory.NewQueue(memory.QueueConfig{Name: "inbox"}))
	r.Queue("outbox", memory.NewQueue(memory.QueueConfig{Name: "outbox"}))
	r.Processor("render", func(context.Context, *broadway.Message) error { return nil })
	r.Processor("resize", func(context.Context, *broadway.Message) error { return nil })
	r.Reporter("store", func(context.Context, *broadway.Batch) error { return nil })
	r.Policy("weight", weight{})
	r.DeadLetterer("log", letters{})
	r.PartitionBy("user", func(*broadway.Message) uint64 { return 0 })
	r.KeyBy("country", func(*broadway.Message) string { return "" })
	return r
}

type weight struct{}

func (weight) Open(time.Time) broadway.BatchState { return weight{} }
func (weight) Fits(*broadway.Message) bool        { return true }
func (weight) Add(*broadway.Message) bool         { return false }
func (weight) Deadline() time.Time                { return time.Time{} }

type letters struct{}

func (letters) DeadLetter(context.Context, []*broadway.Message) error { return nil }
