package pipelines

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// SourceDecoder makes a producer from its section of a file. It dials nothing.
// Mistakes are best reported with the methods of the Section, which know their
// lines; any other error is reported at the section.
type SourceDecoder func(*Section) (broadway.Producer, error)

// PublisherDecoder makes a publisher from its section of a file; see
// [SourceDecoder].
type PublisherDecoder func(*Section) (broadway.Publisher, error)

// Registry has what files refer to by name: the program fills it, then loads
// files. Names are case-sensitive and belong to one kind of thing each: a
// processor and a reporter may share one. A name that is registered twice, or
// with nil, is reported by Load.
//
// It is filled by one goroutine. Loading does not change it.
type Registry struct {
	sources     map[string]SourceDecoder
	publishers  map[string]PublisherDecoder
	queues      map[string]*memory.Queue
	processors  map[string]broadway.Processor
	reporters   map[string]broadway.Reporter
	policies    map[string]broadway.BatchPolicy
	deadLetters map[string]broadway.DeadLetterer
	partitions  map[string]func(*broadway.Message) uint64
	keys        map[string]func(*broadway.Message) string
	spills      map[string]func(context.Context, *broadway.Message) (string, error)
	unavailable map[string]func(error) bool
	configure   []func(*broadway.Config)
	logger      *slog.Logger
	mistakes    []string
}

// NewRegistry is a registry with the kind "memory" of sources and publishers.
// Packages pipelines/kafka and pipelines/rabbitmq register theirs, so that only
// programs that want a broker's client link it.
func NewRegistry() *Registry {
	r := &Registry{
		sources:     make(map[string]SourceDecoder),
		publishers:  make(map[string]PublisherDecoder),
		queues:      make(map[string]*memory.Queue),
		processors:  make(map[string]broadway.Processor),
		reporters:   make(map[string]broadway.Reporter),
		policies:    make(map[string]broadway.BatchPolicy),
		deadLetters: make(map[string]broadway.DeadLetterer),
		partitions:  make(map[string]func(*broadway.Message) uint64),
		keys:        make(map[string]func(*broadway.Message) string),
		spills:      make(map[string]func(context.Context, *broadway.Message) (string, error)),
		unavailable: make(map[string]func(error) bool),
	}
	r.Source("memory", r.memorySource)
	r.Publisher("memory", r.memoryPublisher)
	return r
}

// put registers one thing.
func put[T any](r *Registry, to map[string]T, what, name string, thing T, isNil bool) {
	_, twice := to[name]
	switch {
	case name == "":
		r.mistakes = append(r.mistakes, fmt.Sprintf("the program registered a %s without a name", what))
	case isNil:
		r.mistakes = append(r.mistakes, fmt.Sprintf("the program registered nil as %s %q", what, name))
	case twice:
		r.mistakes = append(r.mistakes, fmt.Sprintf("the program registered %s %q twice", what, name))
	default:
		to[name] = thing
	}
}

// Source registers a kind of producers: "producers: [{kind: {…}}]".
func (r *Registry) Source(kind string, decode SourceDecoder) {
	put(r, r.sources, "source", kind, decode, decode == nil)
}

// Publisher registers a kind of publishers: "dead_letter: {kind: {…}}".
func (r *Registry) Publisher(kind string, decode PublisherDecoder) {
	put(r, r.publishers, "publisher", kind, decode, decode == nil)
}

// Queue registers a queue of the program's own, for "memory: {queue: name}".
func (r *Registry) Queue(name string, q *memory.Queue) {
	put(r, r.queues, "queue", name, q, q == nil)
}

// Processor registers what "processor: {handler: name}" refers to.
func (r *Registry) Processor(name string, handler broadway.Processor) {
	put(r, r.processors, "processor", name, handler, handler == nil)
}

// Reporter registers what "batchers: {…: {reporter: name}}" refers to.
func (r *Registry) Reporter(name string, reporter broadway.Reporter) {
	put(r, r.reporters, "reporter", name, reporter, reporter == nil)
}

// Policy registers what "batchers: {…: {policy: name}}" refers to.
func (r *Registry) Policy(name string, policy broadway.BatchPolicy) {
	put(r, r.policies, "policy", name, policy, policy == nil)
}

// DeadLetterer registers what "failure: {dead_letter: name}" refers to.
func (r *Registry) DeadLetterer(name string, d broadway.DeadLetterer) {
	put(r, r.deadLetters, "dead letterer", name, d, d == nil)
}

// Spill registers what "failure: {dead_letter_spill: name}" refers to: where a message
// is stored of which a dead letter is a reference only. See acknowledgers.DeadLetters.
func (r *Registry) Spill(name string, spill func(context.Context, *broadway.Message) (where string, err error)) {
	put(r, r.spills, "store for large messages", name, spill, spill == nil)
}

// Unavailable registers what "failure: {unavailable: name}" refers to. See
// broadway.FailurePolicy.
func (r *Registry) Unavailable(name string, is func(error) bool) {
	put(r, r.unavailable, "classifier of errors", name, is, is == nil)
}

// PartitionBy registers what "processor: {partition_by: name}" refers to.
func (r *Registry) PartitionBy(name string, by func(*broadway.Message) uint64) {
	put(r, r.partitions, "partition function", name, by, by == nil)
}

// KeyBy registers what "batchers: {…: {key_by: name}}" refers to.
func (r *Registry) KeyBy(name string, by func(*broadway.Message) string) {
	put(r, r.keys, "key function", name, by, by == nil)
}

// Configure lets change see each Config before its pipeline is made: to set an
// Observer, or what no file can say. It is called for files with mistakes too,
// whose pipelines are never made.
func (r *Registry) Configure(change func(*broadway.Config)) {
	r.configure = append(r.configure, change)
}

// Logger is told of what is no mistake but unwise, and becomes the Logger of the
// pipelines. Default slog.Default().
func (r *Registry) Logger(l *slog.Logger) { r.logger = l }

// registered lists the names of things for people.
func registered[T any](things map[string]T) string {
	const most = 20
	names := slices.Sorted(maps.Keys(things))
	switch {
	case len(names) == 0:
		return "none is registered"
	case len(names) > most:
		return fmt.Sprintf("registered are %s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return "registered are " + strings.Join(names, ", ")
}
