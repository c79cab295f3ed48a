package pipelines_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/pipelines"
	"github.com/gobroadway/gobroadway/producers/memory"
)

func TestAFileRuns(t *testing.T) {
	var handled, reported atomic.Int64
	r := pipelines.NewRegistry()
	r.Processor("count", func(context.Context, *broadway.Message) error { handled.Add(1); return nil })
	r.Reporter("count", func(_ context.Context, b *broadway.Batch) error { reported.Add(int64(len(b.Messages))); return nil })
	list, err := pipelines.Parse("run.yaml", []byte(`
producers: [{memory: {payloads: [a, b, c]}}]
processor: {handler: count}
batchers: {default: {reporter: count, size: 2}}
`), r)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.NoError(t, list[0].Run(t.Context()))
	require.EqualValues(t, 3, handled.Load())
	require.EqualValues(t, 3, reported.Load())
	require.EqualValues(t, 3, list[0].Stats().Succeeded)
}

// What fails for good must arrive in the queue that the file names, and the
// program's queue must stay open.
func TestDeadLettersArriveWhereTheFileSays(t *testing.T) {
	dead := memory.NewQueue(memory.QueueConfig{Name: "dead"})
	r := pipelines.NewRegistry()
	r.Queue("dead", dead)
	r.Processor("fail", func(context.Context, *broadway.Message) error { return broadway.Reject(errors.New("no")) })
	list, err := pipelines.Parse("dead.yaml", []byte(`
producers: [{memory: {payloads: [poison]}}]
processor: {handler: fail}
failure:
  action: dead_letter
  dead_letter: {memory: {queue: dead}}
`), r)
	require.NoError(t, err)
	require.NoError(t, list[0].Run(t.Context()))
	require.EqualValues(t, 1, list[0].Stats().DeadLettered)

	var got []string
	r = pipelines.NewRegistry()
	r.Queue("dead", dead)
	r.Processor("read", func(_ context.Context, m *broadway.Message) error { got = append(got, string(m.Payload)); return nil })
	list, err = pipelines.Parse("read.yaml", []byte("producers: [{memory: {queue: dead}}]\nprocessor: {handler: read, concurrency: 1}\n"), r)
	require.NoError(t, err)
	dead.CloseInput()
	require.NoError(t, list[0].Run(t.Context()))
	require.Equal(t, []string{"poison"}, got)
}

// outbox is a publisher that remembers whether it was closed.
type outbox struct {
	closed int
	err    error
}

func (o *outbox) Publish(context.Context, ...broadway.Record) error { return nil }
func (o *outbox) Close() error                                      { o.closed++; return o.err }

func TestRunClosesThePublishersOfTheFile(t *testing.T) {
	out := &outbox{err: errors.New("flush failed")}
	r := pipelines.NewRegistry()
	r.Publisher("outbox", func(*pipelines.Section) (broadway.Publisher, error) { return out, nil })
	r.Processor("ok", func(context.Context, *broadway.Message) error { return nil })
	list, err := pipelines.Parse("close.yaml", []byte(`
producers: [{memory: {payloads: [a]}}]
processor: {handler: ok}
failure: {action: dead_letter, dead_letter: {outbox: }}
`), r)
	require.NoError(t, err)
	require.Zero(t, out.closed)
	require.ErrorIs(t, list[0].Run(t.Context()), out.err)
	require.Equal(t, 1, out.closed)
}

func TestMistakesOfTheProgramAreReportedWithThoseOfTheFile(t *testing.T) {
	r := program()
	r.Processor("render", func(context.Context, *broadway.Message) error { return nil })
	r.Processor("", func(context.Context, *broadway.Message) error { return nil })
	r.Reporter("void", nil)
	r.Policy("void", nil)
	r.Queue("void", nil)
	r.Source("void", nil)
	_, err := pipelines.Parse("x.yaml", []byte("producers: [{memory: {payloads: [a]}}]\nprocessor: {handler: void}\n"), r)
	require.EqualError(t, err, strings.TrimSpace(`
x.yaml: the program registered processor "render" twice
x.yaml: the program registered a processor without a name
x.yaml: the program registered nil as reporter "void"
x.yaml: the program registered nil as policy "void"
x.yaml: the program registered nil as queue "void"
x.yaml: the program registered nil as source "void"
x.yaml:2:13: processor.handler: there is no processor "void"; registered are render, resize`))
}

func TestConfigureSeesEachConfig(t *testing.T) {
	r := program()
	var names []string
	r.Configure(func(cfg *broadway.Config) { names = append(names, cfg.Name); cfg.MaxUnsettled = 777 })
	list, err := pipelines.Load(filepath.Join(testdata, "valid", "several.yaml"), r)
	require.NoError(t, err)
	require.Equal(t, []string{"ingest", "publish"}, names)
	require.Equal(t, 777, list[0].Stats().MaxUnsettled)
}

func TestADecoderReportsWhereItsMistakesAre(t *testing.T) {
	r := program()
	r.Source("strict", func(s *pipelines.Section) (broadway.Producer, error) {
		var cfg struct {
			A int `yaml:"a"`
			B struct {
				C string `yaml:"c"`
			} `yaml:"b"`
		}
		if err := s.Decode(&cfg); err != nil {
			return nil, err
		}
		if s.Fail("a", "a is %d", cfg.A) != pipelines.ErrReported {
			return nil, errors.New("Fail must return ErrReported")
		}
		_ = s.Fail("b.c", "c is %q", cfg.B.C)
		_ = s.Fail("b.d", "d is missing")
		return nil, s.Fail("", "at %s", s.Path())
	})
	r.Source("nothing", func(*pipelines.Section) (broadway.Producer, error) { return nil, nil })
	r.Source("odd", func(s *pipelines.Section) (broadway.Producer, error) { return nil, s.Decode(1) })
	_, err := pipelines.Parse("x.yaml", []byte(`producers:
  - strict:
      a: 5
      b:
        c: text
  - nothing:
  - odd:
processor: {handler: render}
`), r)
	require.EqualError(t, err, strings.TrimSpace(`
x.yaml:2:5: producers[0].strict: at producers[0].strict
x.yaml:3:7: producers[0].strict.a: a is 5
x.yaml:4:7: producers[0].strict.b.d: d is missing
x.yaml:5:9: producers[0].strict.b.c: c is "text"
x.yaml:6:5: producers[1].nothing: its decoder returned nothing
x.yaml:7:5: producers[2].odd: cannot be decoded into int: want a pointer to a struct`))
}

// secret is a registry whose feeds end up in the list that it returns.
func secret(r *pipelines.Registry) *[]*feed {
	var made []*feed
	r.Source("safe", func(s *pipelines.Section) (broadway.Producer, error) {
		f := &feed{Producer: memory.New(memory.Config{})}
		made = append(made, f)
		return f, s.Decode(&f.cfg)
	})
	return &made
}

func safeFile(key, value string) []byte {
	return fmt.Appendf(nil, "producers: [{safe: {url: x, %s: %s}}]\nprocessor: {handler: render}\nfailure: {action: drop}\n", key, value)
}

func TestSecretsAreReadAnewAndWithoutTheirLineBreak(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("first \r\n"), 0o600))
	r := program()
	made := secret(r)
	_, err := pipelines.Parse("x.yaml", safeFile("password_file", file), r)
	require.NoError(t, err)
	s := (*made)[0].cfg.Password
	require.True(t, s.Set())
	value, err := s.Read()
	require.NoError(t, err)
	require.Equal(t, "first ", value)

	require.NoError(t, os.WriteFile(file, []byte("second\n\n"), 0o600))
	value, err = s.Read()
	require.NoError(t, err)
	require.Equal(t, "second\n", value, "one line break belongs to the file, more to the secret")

	require.NoError(t, os.Remove(file))
	_, err = s.Read()
	require.Error(t, err)
	require.NotContains(t, err.Error(), file)

	token := (*made)[0].cfg.Token
	require.False(t, token.Set())
	_, err = token.Read()
	require.Error(t, err)
}

func TestSecretsThatAreNotThereAreMistakes(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) string {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600))
		return name
	}
	t.Setenv("EMPTY", "")
	for _, c := range []struct{ key, value, want string }{
		{"password_env", "EMPTY", "the environment variable is not set, or empty"},
		{"password_env", "BROADWAY_NOT_SET", "the environment variable is not set, or empty"},
		{"password_env", `""`, "want the name of an environment variable, as text"},
		{"password_file", write("empty", "\n"), "the file is empty"},
		{"password_file", write("large", strings.Repeat("x", 65<<10)), "the file is larger than 64 KiB"},
		{"password_file", "missing", "the file cannot be read: no such file or directory"},
		{"password_file", ".", "the file cannot be read: is a directory"},
		{"password_file", "~", "want the name of a file, as text"},
	} {
		r := program()
		secret(r)
		_, err := pipelines.Parse(filepath.Join(folder, "x.yaml"), safeFile(c.key, c.value), r)
		require.ErrorContains(t, err, "producers[0].safe."+c.key+": "+c.want)
	}
}

func TestASecretShowsInNoForm(t *testing.T) {
	t.Setenv("CANARY", canary)
	r := program()
	made := secret(r)
	_, err := pipelines.Parse("x.yaml", safeFile("password_env", "CANARY"), r)
	require.NoError(t, err)
	f := (*made)[0]
	value, err := f.cfg.Password.Read()
	require.NoError(t, err)
	require.Equal(t, canary, value)

	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("secret", "s", f.cfg.Password, "all", f.cfg)
	slog.New(slog.NewTextHandler(&log, nil)).Info("secret", "s", f.cfg.Password, "all", f.cfg)
	asJSON, err := json.Marshal(f.cfg)
	require.NoError(t, err)
	asYAML, err := yaml.Marshal(struct{ S any }{f.cfg.Password})
	require.NoError(t, err)
	shown := log.String() + string(asJSON) + string(asYAML) +
		fmt.Sprintf("%v %+v %#v %s %q %x %d", f.cfg, f.cfg, f.cfg, f.cfg.Password, f.cfg.Password, f.cfg.Password, f.cfg.Password)
	require.NotContains(t, shown, canary)
	require.NotContains(t, shown, fmt.Sprintf("%x", canary))
	require.NotContains(t, shown, "CANARY", "the name may be the secret, put in the wrong place")
	require.Contains(t, shown, "***")
}

func TestASecretThatEverybodyCanReadIsWarnedOf(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // has no such permissions
	}
	folder := t.TempDir()
	file := filepath.Join(folder, "password")
	require.NoError(t, os.WriteFile(file, []byte(canary), 0o600))
	var log strings.Builder
	r := program()
	secret(r)
	r.Logger(slog.New(slog.NewTextHandler(&log, nil)))
	_, err := pipelines.Parse("x.yaml", safeFile("password_file", file), r)
	require.NoError(t, err)
	require.Empty(t, log.String())

	require.NoError(t, os.Chmod(file, 0o604))
	_, err = pipelines.Parse("x.yaml", safeFile("password_file", file), r)
	require.NoError(t, err)
	require.Contains(t, log.String(), "x.yaml:1:44: producers[0].safe.password_file: every user of this machine can read the file")
	require.NotContains(t, log.String(), canary)
}

func TestRelativeFilesStartAtTheFolderOfTheFile(t *testing.T) {
	folder := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(folder, "password"), []byte("x"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "x.yaml"), safeFile("password_file", "password"), 0o600))
	r := program()
	secret(r)
	_, err := pipelines.Load(filepath.Join(folder, "x.yaml"), r)
	require.NoError(t, err)
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"1": 1, "1B": 1, "5kB": 5000, "5 KB": 5000, "64KiB": 64 << 10, "3MB": 3e6, "2MiB": 2 << 20, "1GB": 1e9, "8GiB": 8 << 30,
		"9223372036854775807": 1<<63 - 1,
		"0":                   0, "": 0, "-1": 0, "1.5MiB": 0, "64M": 0, "64mib": 0, "MiB": 0, "9223372036854775808": 0, "8589934592GiB": 0, "1 000": 0, "1_000": 0,
	} {
		var s pipelines.Size
		err := s.UnmarshalText([]byte(text))
		if want == 0 {
			require.Error(t, err, text)
			continue
		}
		require.NoError(t, err, text)
		require.EqualValues(t, want, s, text)
	}
}

func TestTheNameOfAPipelineIsTheFiles(t *testing.T) {
	text := []byte("producers: [{memory: {payloads: [a]}}]\nprocessor: {handler: render}\n")
	for file, want := range map[string]string{
		"orders.yaml": "orders", "a/b/orders.v2.yml": "orders.v2", "orders": "orders", "": "pipeline", ".yaml": "pipeline", "a\nb.yaml": "pipeline",
	} {
		list, err := pipelines.Parse(file, text, program())
		require.NoError(t, err)
		require.Equal(t, want, list[0].Stats().Name, file)
	}
}
