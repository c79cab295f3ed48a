package pipelines_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/pipelines"
	"github.com/gobroadway/gobroadway/pipelines/kafka"
	"github.com/gobroadway/gobroadway/pipelines/rabbitmq"
)

var update = flag.Bool("update", false, "write the golden files anew; look at the difference")

const testdata = "../testdata/pipelines"

// canary is in the files where a secret could be: it must not be said anywhere.
const canary = "canary-hunter2"

// files are the YAML files of a folder. There are many, or the folder is wrong.
func files(t testing.TB, folder string, atLeast int) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(testdata, folder, "*.yaml"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(list), atLeast)
	return list
}

// golden compares got with the golden file beside file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	name := strings.TrimSuffix(file, ".yaml") + ".golden"
	if *update {
		require.NoError(t, os.WriteFile(name, []byte(got), 0o644))
	}
	want, err := os.ReadFile(name)
	require.NoError(t, err, "run the test with -update, and look at what it writes")
	require.Equal(t, string(want), got)
}

// programFor registers the kinds of brokers for the files that are about them.
func programFor(file string) *pipelines.Registry {
	r := program()
	switch name, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".yaml"), "-"); name {
	case "kafka":
		kafka.Register(r)
	case "rabbitmq":
		rabbitmq.Register(r)
	}
	return r
}

func load(t *testing.T, file string, registry *pipelines.Registry) ([]*pipelines.Pipeline, error) {
	t.Helper()
	t.Setenv("FEED_TOKEN", "swordfish")
	t.Setenv("EMPTY", "")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	// The name that messages show is the same on every system.
	return pipelines.Parse(filepath.ToSlash(file), text, registry)
}

func TestInvalidFilesAreRefusedWithEverythingThatIsWrong(t *testing.T) {
	for _, file := range files(t, "invalid", 80) {
		if strings.Contains(file, "two-to-the-63") && strconv.IntSize < 64 {
			continue // where an int is smaller, more is out of its range
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			list, err := load(t, file, programFor(file))
			require.Error(t, err)
			require.Nil(t, list)
			var all *pipelines.Error
			require.ErrorAs(t, err, &all)
			require.NotContains(t, err.Error(), canary)
			for _, p := range all.Problems {
				require.Equal(t, filepath.ToSlash(file), p.File)
				require.Positive(t, p.Line)
				require.Positive(t, p.Column)
			}
			golden(t, file, strings.ReplaceAll(err.Error(), filepath.ToSlash(filepath.Dir(file))+"/", "")+"\n")
		})
	}
}

func TestValidFilesBecomeTheirPipelines(t *testing.T) {
	for _, file := range files(t, "valid", 10) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			registry := programFor(file)
			var configs []broadway.Config
			registry.Configure(func(cfg *broadway.Config) { configs = append(configs, *cfg) })
			list, err := load(t, file, registry)
			require.NoError(t, err)
			require.Len(t, configs, len(list))
			var b strings.Builder
			for i, p := range list {
				show(&b, configs[i], p)
			}
			golden(t, file, b.String())
		})
	}
}

// show writes what the file said, as the Config has it, and what became of it.
func show(b *strings.Builder, c broadway.Config, p *pipelines.Pipeline) {
	set := func(v any) string {
		if fmt.Sprintf("%v", v) == "<nil>" {
			return "none"
		}
		return "set"
	}
	fmt.Fprintf(b, "pipeline %q\n", c.Name)
	for _, source := range c.Producers {
		traits := source.(broadway.Describer).Describe(broadway.Limits{MaxUnsettled: 1000, MaxUnsettledBytes: 1 << 20, Share: 1000})
		fmt.Fprintf(b, "  producer %s %q broker=%v prefetch=%d ack_timeout=%v\n", traits.Kind, traits.Name, traits.Broker, traits.Prefetch, traits.AckTimeout)
		if f, ok := source.(*feed); ok {
			f.show(b)
		}
	}
	fmt.Fprintf(b, "  processor concurrency=%d max_demand=%d min_demand=%d timeout=%v max_stuck=%d retry_stuck=%v partition_by=%v unordered=%v\n",
		c.Processor.Concurrency, c.Processor.MaxDemand, c.Processor.MinDemand, c.Processor.Timeout,
		c.Processor.MaxStuck, c.Processor.RetryStuck, c.Processor.PartitionBy != nil, c.Processor.Unordered)
	for _, a := range c.Batchers {
		fmt.Fprintf(b, "  batcher %q concurrency=%d size=%d bytes=%d timeout=%d key_by=%v policy=%s report_timeout=%v max_stuck=%d retry_stuck=%v\n",
			a.Name, a.Concurrency, a.Size, a.Bytes, a.Timeout, a.KeyBy != nil, set(a.Policy), a.ReportTimeout, a.MaxStuck, a.RetryStuck)
	}
	fmt.Fprintf(b, "  failure max_attempts=%d backoff=%v action=%v dead_letter=%s\n",
		c.Failure.MaxAttempts, c.Failure.Backoff, c.Failure.Action, set(c.Failure.DeadLetter))
	fmt.Fprintf(b, "  max_unsettled=%d max_unsettled_bytes=%d drain_timeout=%v fail_fast=%v reconnect_backoff=%v\n",
		c.MaxUnsettled, c.MaxUnsettledBytes, c.DrainTimeout, c.FailFast, c.ReconnectBackoff)
	if c.MessageLimits != (broadway.MessageLimits{}) {
		fmt.Fprintf(b, "  message_limits %+v\n", c.MessageLimits)
	}
	fmt.Fprintf(b, "  stages")
	for _, s := range p.Topology() {
		concurrency := fmt.Sprint(s.Concurrency)
		if s.Kind == "processor" && c.Processor.Concurrency == 0 && s.Concurrency == 2*runtime.GOMAXPROCS(0) {
			concurrency = "default" // this machine's
		}
		fmt.Fprintf(b, " %s:%s:%s", s.Kind, s.Name, concurrency)
	}
	b.WriteString("\n")
}

func (f *feed) show(b *strings.Builder) {
	secret := func(s pipelines.Secret) string {
		value, err := s.Read()
		return fmt.Sprintf("%v (%d bytes, %v)", s, len(value), errors.Unwrap(err))
	}
	c := f.cfg
	fmt.Fprintf(b, "    tags=%q every=%v page=%d priority=%d ratio=%v verbose=%v\n", c.Tags, c.Every, c.Page, c.Priority, c.Ratio, c.Verbose)
	fmt.Fprintf(b, "    offset=%d limits=%v extra=%#v\n", *c.Offset, c.Limits, c.Extra)
	fmt.Fprintf(b, "    password=%s token=%s\n", secret(c.Password), secret(c.Token))
}
