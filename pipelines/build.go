package pipelines

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"gopkg.in/yaml.v3"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
)

// builder turns the spec of one pipeline into a Config. What is missing because
// it was reported already is stood in for, so that broadway.New goes on to the
// mistakes that were not.
type builder struct {
	registry *Registry
	doc      *document
	path     string // of the pipeline, "" for a file with one

	producers []string // paths of the producers, by their index in the Config
	batchers  []string // paths of the batchers, likewise
	closers   []io.Closer
}

// fail reports a mistake at a path within the pipeline.
func (b *builder) fail(path, format string, args ...any) {
	path = join(b.path, path)
	b.doc.fail(b.doc.at(path), path, format, args...)
}

// there says whether the file has a key.
func (b *builder) there(path string) bool {
	_, ok := b.doc.places[join(b.path, path)]
	return ok
}

func (b *builder) config(spec *pipelineSpec) broadway.Config {
	if wrongName(spec.Name) {
		b.fail("name", "must be 1 to %d bytes without control characters", maxName)
	}
	cfg := broadway.Config{
		Name:              spec.Name,
		Processor:         b.processor(&spec.Processor),
		Failure:           b.failure(&spec.Failure),
		MessageLimits:     spec.MessageLimits.limits(),
		MaxUnsettled:      spec.MaxUnsettled,
		MaxUnsettledBytes: int64(spec.MaxUnsettledBytes),
		DrainTimeout:      spec.DrainTimeout,
		FailFast:          spec.FailFast,
		ReconnectBackoff:  spec.ReconnectBackoff.Backoff(),
		Logger:            b.registry.logger,
	}
	for i, p := range spec.Producers {
		cfg.Producers = append(cfg.Producers, b.producer(p, index("producers", i)))
	}
	for _, name := range b.doc.batcherNames(spec.Batchers, join(b.path, "batchers")) {
		batcher := spec.Batchers[name]
		cfg.Batchers = append(cfg.Batchers, b.batcher(name, &batcher))
	}
	return cfg
}

// maxName bounds the name of a pipeline, which is in each of its log lines and
// series.
const maxName = 200

func wrongName(name string) bool {
	return name == "" || len(name) > maxName || strings.ContainsFunc(name, unicode.IsControl)
}

func (b *builder) producer(p oneOf, path string) broadway.Producer {
	b.producers = append(b.producers, path)
	if p.section == nil {
		return standIn{} // it was reported
	}
	path = join(path, element(p.kind))
	b.producers[len(b.producers)-1] = path
	decode, ok := b.registry.sources[p.kind]
	if !ok {
		b.fail(path, "there is no source of this kind; %s%s", registered(b.registry.sources), advice(p.kind))
		return standIn{}
	}
	producer, err := decode(p.section)
	if err != nil || producer == nil {
		b.refused(path, err)
		return standIn{}
	}
	return producer
}

// refused reports what a decoder has not reported itself.
func (b *builder) refused(path string, err error) {
	switch {
	case errors.Is(err, ErrReported):
	case err == nil:
		b.fail(path, "its decoder returned nothing")
	default:
		for line := range strings.Lines(err.Error()) {
			b.locateLine(path, strings.TrimSuffix(line, "\n"))
		}
	}
}

// advice is what to do about a kind of this project that is not registered.
func advice(kind string) string {
	if kind == "kafka" || kind == "rabbitmq" {
		return fmt.Sprintf(" (the program must call Register of package pipelines/%s)", kind)
	}
	return ""
}

// find looks up name, the value of the key path. False says that there is none;
// a wrong name was reported.
func find[T any](b *builder, things map[string]T, what, path, name string) (T, bool) {
	thing, ok := things[name]
	if !ok && b.there(path) && !b.doc.isBroken(join(b.path, path)) {
		b.fail(path, "there is no %s %q; %s", what, excerpt(name), registered(things))
	}
	return thing, ok
}

func (b *builder) processor(spec *processorSpec) broadway.ProcessorConfig {
	cfg := broadway.ProcessorConfig{
		Concurrency: spec.Concurrency, MaxDemand: spec.MaxDemand, MinDemand: spec.MinDemand,
		Timeout: spec.Timeout, MaxStuck: int(spec.MaxStuck), RetryStuck: spec.RetryStuck, Unordered: spec.Unordered,
	}
	cfg.Handler, _ = find(b, b.registry.processors, "processor", "processor.handler", spec.Handler)
	cfg.PartitionBy, _ = find(b, b.registry.partitions, "partition function", "processor.partition_by", spec.PartitionBy)
	if cfg.Handler == nil && b.there("processor.handler") {
		cfg.Handler = func(context.Context, *broadway.Message) error { return nil }
	}
	return cfg
}

func (b *builder) batcher(name string, spec *batcherSpec) broadway.BatcherConfig {
	path := join("batchers", element(name))
	b.batchers = append(b.batchers, path)
	cfg := broadway.BatcherConfig{
		Name: name, Concurrency: spec.Concurrency, Size: spec.Size, Bytes: int64(spec.Bytes),
		Timeout: time.Duration(spec.Timeout), ReportTimeout: spec.ReportTimeout,
		MaxStuck: int(spec.MaxStuck), RetryStuck: spec.RetryStuck,
	}
	cfg.Reporter, _ = find(b, b.registry.reporters, "reporter", path+".reporter", spec.Reporter)
	cfg.Policy, _ = find(b, b.registry.policies, "policy", path+".policy", spec.Policy)
	cfg.KeyBy, _ = find(b, b.registry.keys, "key function", path+".key_by", spec.KeyBy)
	if cfg.Reporter == nil && b.there(path+".reporter") {
		cfg.Reporter = func(context.Context, *broadway.Batch) error { return nil }
	}
	if name == "" {
		b.fail(path, "a batcher needs a name")
	}
	return cfg
}

func (b *builder) failure(spec *failureSpec) broadway.FailurePolicy {
	policy := broadway.FailurePolicy{
		MaxAttempts: spec.MaxAttempts, Backoff: spec.Backoff.Backoff(), Action: broadway.Action(spec.Action),
	}
	const path = "failure.dead_letter"
	switch {
	case spec.DeadLetter.section != nil:
		policy.DeadLetter = b.deadLetterTo(spec, join(path, element(spec.DeadLetter.kind)))
	case spec.DeadLetter.name != "":
		policy.DeadLetter, _ = find(b, b.registry.deadLetters, "dead letterer", path, spec.DeadLetter.name)
	}
	for _, key := range []string{"failure.dead_letter_max_bytes", "failure.dead_letter_spill"} {
		if spec.DeadLetter.section == nil && b.there(key) {
			b.fail(key, "is about dead letters to a publisher that the file describes: dead_letter: {kind: {…}}")
		}
	}
	policy.Unavailable, _ = find(b, b.registry.unavailable, "classifier of errors", "failure.unavailable", spec.Unavailable)
	if policy.DeadLetter == nil && b.there(path) {
		policy.DeadLetter = standIn{} // it was reported
	}
	if policy.Action == broadway.ActionNone && b.there("failure.action") {
		policy.Action = broadway.ActionDrop // likewise
	}
	return policy
}

// deadLetterTo makes the publisher that a file describes, and sends dead letters
// there.
func (b *builder) deadLetterTo(spec *failureSpec, path string) broadway.DeadLetterer {
	p := spec.DeadLetter.oneOf
	decode, ok := b.registry.publishers[p.kind]
	if !ok {
		b.fail(path, "there is no publisher of this kind; %s%s", registered(b.registry.publishers), advice(p.kind))
		return nil
	}
	publisher, err := decode(p.section)
	if err != nil || publisher == nil {
		b.refused(path, err)
		return nil
	}
	if v, ok := publisher.(broadway.Validator); ok {
		if err := v.Validate(); err != nil {
			b.refused(path, err)
			return nil
		}
	}
	b.closers = append(b.closers, publisher)
	spill, _ := find(b, b.registry.spills, "store for large messages", "failure.dead_letter_spill", spec.DeadLetterSpill)
	return &acknowledgers.DeadLetters{Publisher: publisher, MaxBytes: int64(spec.DeadLetterMaxBytes), Spill: spill}
}

// standIn takes the place of a producer or dead letterer that was reported.
type standIn struct{}

// Describe says that it can do everything, so that nothing is wrong with it.
func (standIn) Describe(broadway.Limits) broadway.Traits {
	return broadway.Traits{Actions: ^broadway.Actions(0)}
}

// DeadLetter is never called.
func (standIn) DeadLetter(context.Context, []*broadway.Message) error { return nil }

// Fetch is never called.
func (standIn) Fetch(context.Context, broadway.Demand) ([]*broadway.Message, error) {
	return nil, io.EOF
}

// Close is never called.
func (standIn) Close() error { return nil }

func isMapping(n *yaml.Node) bool { return n.Kind == yaml.MappingNode }
