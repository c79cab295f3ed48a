package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/examples/news/internal/standin"
	"github.com/gobroadway/gobroadway/examples/news/internal/store"
)

// The queues that may stand between A and B.
const (
	queueNone     = "none"
	queueEmbedded = "embedded"
	queueKafka    = "kafka"
	queueRabbitMQ = "rabbitmq"
)

// options are the command's flags.
type options struct {
	posts    int
	queue    string
	kafka    string
	rabbitmq string
	dir      string
	database string
	site     string
	metrics  string
	faults   string
	seed     uint64
	workers  int
	json     bool

	// around wraps B's handler. Tests break it.
	around func(broadway.Processor) broadway.Processor
}

func parse(args []string, screen io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("news", flag.ContinueOnError)
	f.SetOutput(screen)
	f.IntVar(&o.posts, "posts", 3000, fmt.Sprintf("stop after so many posts, those of earlier runs on the same database included; at most %d", standin.CorpusSize))
	f.StringVar(&o.queue, "queue", queueEmbedded, "what stands between A and B: none, embedded (a Kafka in this process), kafka or rabbitmq")
	f.StringVar(&o.kafka, "kafka", "localhost:9092", "Kafka's `address`, for -queue kafka; several with commas")
	f.StringVar(&o.rabbitmq, "rabbitmq", "amqp://guest:guest@localhost:5672/", "RabbitMQ's `url`, for -queue rabbitmq")
	f.StringVar(&o.dir, "dir", "", "the `folder` for database, site and ledger; the same one again continues. Default: a new temporary one")
	f.StringVar(&o.database, "database", "", "a SQLite `file`, or a postgres:// URL. Default: news.db in -dir")
	f.StringVar(&o.site, "site", "", "the `folder` of the static site. Default: site in -dir")
	f.StringVar(&o.metrics, "metrics", "127.0.0.1:0", "serve Prometheus metrics on this loopback `address`; empty for not at all")
	f.StringVar(&o.faults, "faults", "default", "how platforms misbehave: none, default, or harsh, which refuses some posts for ever")
	f.Uint64Var(&o.seed, "seed", 1, "decides about the posts, and what goes wrong when")
	f.IntVar(&o.workers, "workers", 16, "posts that B republishes at once")
	f.BoolVar(&o.json, "json", false, "print the summary as one line of JSON")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("what is %q? There are flags only", f.Arg(0))
	}
	return o, o.check()
}

func (o options) check() error {
	var errs []error
	if o.posts < 1 || o.posts > standin.CorpusSize {
		errs = append(errs, fmt.Errorf("-posts: %d is not within 1 to %d", o.posts, standin.CorpusSize))
	}
	if queues := []string{queueNone, queueEmbedded, queueKafka, queueRabbitMQ}; !slices.Contains(queues, o.queue) {
		errs = append(errs, fmt.Errorf("-queue: %q is none of %s", o.queue, strings.Join(queues, ", ")))
	}
	if _, ok := faults(o.faults); !ok {
		errs = append(errs, fmt.Errorf("-faults: %q is none of none, default, harsh", o.faults))
	}
	if o.workers < 1 || o.workers > 1000 {
		errs = append(errs, fmt.Errorf("-workers: %d is not within 1 to 1000", o.workers))
	}
	return errors.Join(errs...)
}

func faults(name string) (standin.Faults, bool) {
	switch name {
	case "none":
		return standin.Faults{}, true
	case "default":
		return standin.DefaultFaults(), true
	case "harsh":
		return standin.HarshFaults(), true
	}
	return standin.Faults{}, false
}

// places makes the folder that everything lies in, and says where what is.
func (o options) places() (database, site, ledger string, err error) {
	dir := o.dir
	if dir == "" && o.database != "" && !store.IsPostgres(o.database) {
		dir = o.database + ".d" // so that the same database finds its site and ledger again
	}
	if dir == "" {
		dir, err = os.MkdirTemp("", "broadway-news-")
	} else {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return "", "", "", err
	}
	database, site = o.database, o.site
	if database == "" {
		database = filepath.Join(dir, "news.db")
	}
	if site == "" {
		site = filepath.Join(dir, "site")
	}
	return database, site, filepath.Join(dir, "ledger.jsonl"), nil
}
