package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// secretCanary stands where a secret is, or could be. Nobody may say it.
const secretCanary = "canary-swordfish-77"

// soundFile is a file that can be loaded. BROKER is a listener that counts who comes.
const soundFile = `name: orders
producers:
  - kafka:
      brokers: ["BROKER"]
      topics: [orders]
      group: billing
      sasl: {mechanism: PLAIN, username: u, password_env: CHAOS_SECRET}
  - rabbitmq:
      host: 127.0.0.1
      port: PORT
      username: u
      password_env: CHAOS_SECRET
      queue: orders
      prefetch: 50
processor:
  handler: handle
  concurrency: 4
  unordered: true
batchers:
  default: {reporter: report, size: 10, timeout: 1s}
failure:
  max_attempts: 3
  action: dead_letter
  dead_letter:
    kafka: {brokers: ["BROKER"], topic: orders.dead}
drain_timeout: 30s
max_unsettled: 1000
`

// brokenFile is one way of breaking it: by putting another text in place of a part, or of the whole.
type brokenFile struct {
	name     string
	old, new string // an empty old is the whole
	key      string // what the message must name, if there is such a key
	whole    bool   // it concerns no line
}

// brokenClasses are 50 ways.
func brokenClasses() []brokenFile {
	deep := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
	bomb := "  extra:\n    a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'k'; c++ {
		bomb += fmt.Sprintf("    %c: &%c [%s*%c]\n", c, c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 9), c-1)
	}
	return []brokenFile{
		{name: "unknown key", old: "drain_timeout: 30s", new: "drain_timout: 30s", key: "drain_timout"},
		{name: "unknown key of a source", old: "group: billing", new: "group: billing\n      consumer: x", key: "producers[0].kafka.consumer"},
		{name: "unknown key of a stage", old: "concurrency: 4", new: "concurency: 4", key: "processor.concurency"},
		{name: "duplicate key", old: "drain_timeout: 30s", new: "drain_timeout: 30s\ndrain_timeout: 31s", key: "drain_timeout"},
		{name: "duplicate key of a source", old: "group: billing", new: "group: billing\n      group: x", key: "group"},
		{name: "duplicate batcher", old: "failure:", new: "  default: {reporter: report}\nfailure:", key: "default"},
		{name: "tab", old: "  handler: handle", new: "\thandler: handle"},
		{name: "open quote", old: "name: orders", new: "name: \"orders"},
		{name: "open brace", old: "{reporter: report, size: 10, timeout: 1s}", new: "{reporter: report, size: 10"},
		{name: "wrong indent", old: "  concurrency: 4", new: " concurrency: 4"},
		{name: "text for a number", old: "concurrency: 4", new: "concurrency: many", key: "processor.concurrency"},
		{name: "list for a number", old: "concurrency: 4", new: "concurrency: [4]", key: "processor.concurrency"},
		{name: "number for a list", old: "topics: [orders]", new: "topics: 5", key: "producers[0].kafka.topics"},
		{name: "mapping for a text", old: "group: billing", new: "group: {a: b}", key: "producers[0].kafka.group"},
		{name: "word for a mapping", old: "failure:\n  max_attempts: 3\n  action: dead_letter\n  dead_letter:\n    kafka: {brokers: [\"BROKER\"], topic: orders.dead}", new: "failure: drop", key: "failure"},
		{name: "yes for true", old: "unordered: true", new: "unordered: yes", key: "processor.unordered"},
		{name: "negative size", old: "size: 10", new: "size: -10", key: "batchers.default.size"},
		{name: "zero size", old: "size: 10", new: "size: 0", key: "batchers.default.size"},
		{name: "NaN", old: "max_unsettled: 1000", new: "max_unsettled: .nan", key: "max_unsettled"},
		{name: "infinity", old: "max_unsettled: 1000", new: "max_unsettled: .inf", key: "max_unsettled"},
		{name: "2^63", old: "max_unsettled: 1000", new: "max_unsettled: 9223372036854775808", key: "max_unsettled"},
		{name: "2^63 prefetch", old: "prefetch: 50", new: "prefetch: 9223372036854775808", key: "producers[1].rabbitmq.prefetch"},
		{name: "fraction", old: "concurrency: 4", new: "concurrency: 4.5", key: "processor.concurrency"},
		{name: "hexadecimal", old: "concurrency: 4", new: "concurrency: 0x4", key: "processor.concurrency"},
		{name: "port out of range", old: "port: PORT", new: "port: 70000", key: "producers[1].rabbitmq.port"},
		{name: "prefetch zero", old: "prefetch: 50", new: "prefetch: 0", key: "producers[1].rabbitmq.prefetch"},
		{name: "prefetch out of range", old: "prefetch: 50", new: "prefetch: 65536", key: "producers[1].rabbitmq.prefetch"},
		{name: "duration without unit", old: "drain_timeout: 30s", new: "drain_timeout: 30", key: "drain_timeout"},
		{name: "negative duration", old: "drain_timeout: 30s", new: "drain_timeout: -30s", key: "drain_timeout"},
		{name: "alias bomb", old: "drain_timeout: 30s", new: bomb},
		{name: "anchor within itself", old: "topics: [orders]", new: "topics: &t [*t]"},
		{name: "unknown anchor", old: "topics: [orders]", new: "topics: *none"},
		{name: "20,000 deep", old: "name: orders", new: "name: " + deep},
		{name: "second document", old: "max_unsettled: 1000", new: "max_unsettled: 1000\n---\nname: again"},
		{name: "byte order mark alone", new: "\ufeff", whole: true},
		{name: "UTF-16", new: "\xff\xfen\x00a\x00m\x00e\x00:\x00 \x00x\x00\n\x00"},
		{name: "CRLF with a mistake", old: "drain_timeout: 30s\n", new: "drain_timeout: 30\r\n", key: "drain_timeout"},
		{name: "empty", new: "", whole: true},
		{name: "only comments", new: "# nothing\n", whole: true},
		{name: "binary", new: "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00", whole: true},
		{name: "terminal codes in a key", old: "drain_timeout: 30s", new: "\"\\e[31mred\\r\\nlevel=ERROR\": x"},
		{name: "10 MB", new: strings.Repeat("# x\n", 10<<18), whole: true},
		{name: "password in the file", old: "password_env: CHAOS_SECRET}", new: "password: " + secretCanary + "}", key: "producers[0].kafka.sasl.password"},
		{name: "password as a number", old: "password_env: CHAOS_SECRET}", new: "password: 0123}", key: "producers[0].kafka.sasl.password"},
		{name: "password for a variable", old: "password_env: CHAOS_SECRET}", new: "password_env: " + secretCanary + "}", key: "producers[0].kafka.sasl.password_env"},
		{name: "password in a URL", old: "host: 127.0.0.1\n      port: PORT\n      username: u\n      password_env: CHAOS_SECRET", new: "url: amqp://u:" + secretCanary + "@BROKER/", key: "producers[1].rabbitmq.url"},
		{name: "variable missing", old: "password_env: CHAOS_SECRET}", new: "password_env: CHAOS_NOT_SET}", key: "producers[0].kafka.sasl.password_env"},
		{name: "secret file outside", old: "password_env: CHAOS_SECRET}", new: "password_file: ../../../../../../nowhere/shadow}", key: "producers[0].kafka.sasl.password_file"},
		{name: "unknown handler", old: "handler: handle", new: "handler: handel", key: "processor.handler"},
		{name: "unknown action, with other mistakes", old: "action: dead_letter", new: "action: forget", key: "failure.action"},
		{name: "two of one name", new: twice(), key: "pipelines[1].name"},
	}
}

// twice is the same pipeline two times in one file.
func twice() string {
	indented := "  - " + strings.ReplaceAll(strings.TrimSpace(soundFile), "\n", "\n    ") + "\n"
	return "pipelines:\n" + indented + indented
}

// watchtower listens, and counts connections: there must be none.
type watchtower struct {
	listener net.Listener
	came     atomic.Int64
	over     chan struct{}
}

func newWatchtower() (*watchtower, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &watchtower{listener: listener, over: make(chan struct{})}
	go func() { // close waits for it
		defer close(w.over)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			w.came.Add(1)
			_ = conn.Close()
		}
	}()
	return w, nil
}

func (w *watchtower) addr() string { return w.listener.Addr().String() }

func (w *watchtower) close() error {
	err := w.listener.Close()
	<-w.over
	return err
}

// loaded is what a process said that has loaded a file.
type loaded struct {
	code int
	took time.Duration
	peak int64 // KiB
	said string
}

// brokenFiles is G1.
func brokenFiles(ctx context.Context, env *Env) (outcome *Outcome, err error) {
	_, dir, err := env.newRun()
	if err != nil {
		return nil, err
	}
	broker, err := newWatchtower()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, broker.close()) }()
	_, port, err := net.SplitHostPort(broker.addr())
	if err != nil {
		return nil, err
	}
	filled := strings.NewReplacer("BROKER", broker.addr(), "PORT", port)
	outcome = new(Outcome)
	sound, err := loadFile(ctx, dir, "sound.yaml", filled.Replace(soundFile))
	if err != nil {
		return nil, err
	}
	outcome.Must(sound.code == worker.ExitClean, "the file that the others are made of is refused itself: %s", sound.said)
	classes := brokenClasses()
	var slowest time.Duration
	var most int64
	for i, class := range classes {
		text := class.new
		if class.old != "" {
			if !strings.Contains(soundFile, class.old) {
				return nil, fmt.Errorf("class %q replaces what is not there", class.name)
			}
			text = strings.Replace(soundFile, class.old, class.new, 1)
		}
		got, err := loadFile(ctx, dir, fmt.Sprintf("broken-%d.yaml", i), filled.Replace(text))
		if err != nil {
			return nil, err
		}
		class.judge(outcome, fmt.Sprintf("broken-%d.yaml", i), got)
		slowest, most = max(slowest, got.took), max(most, got.peak)
	}
	outcome.Must(len(classes) >= 50, "%d classes only", len(classes))
	outcome.Must(broker.came.Load() == 0, "%d connections", broker.came.Load())
	outcome.Note("%d files refused; the slowest process took %.2f s, the largest %d MiB; no connection", len(classes), slowest.Seconds(), most>>10)
	return outcome, nil
}

// judge compares what a process said with what it should.
func (b brokenFile) judge(outcome *Outcome, file string, got loaded) {
	const memory, size = 64 << 10, 64 << 10
	outcome.Must(got.code == worker.ExitConfig, "%s: exit code %d: %.300q", b.name, got.code, got.said)
	place := regexp.MustCompile(`(?m)^\S*` + regexp.QuoteMeta(file) + `:[1-9]\d*:[1-9]\d*: `)
	if b.whole {
		place = regexp.MustCompile(regexp.QuoteMeta(file))
	}
	outcome.Must(place.MatchString(got.said), "%s: the message names no line: %.300q", b.name, got.said)
	outcome.Must(strings.Contains(got.said, b.key), "%s: the message does not name %s: %.300q", b.name, b.key, got.said)
	outcome.Must(!strings.Contains(got.said, secretCanary), "%s: the message has the secret", b.name)
	outcome.Must(!hasControl(got.said), "%s: the message has control characters: %.300q", b.name, got.said)
	outcome.Must(len(got.said) <= size, "%s: the message has %d bytes", b.name, len(got.said))
	outcome.Must(got.peak <= memory, "%s: %d KiB of memory", b.name, got.peak)
	outcome.Must(got.took <= 5*time.Second, "%s: %v", b.name, got.took) // a second, on a machine that does nothing else
}

// hasControl says whether a text has characters that a terminal would obey.
func hasControl(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 })
}

// loadFile lets a process load a file.
func loadFile(ctx context.Context, dir, name, text string) (loaded, error) {
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return loaded{}, err
	}
	program, err := os.Executable()
	if err != nil {
		return loaded{}, err
	}
	cmd := exec.CommandContext(ctx, program, "worker", "-pipelines", file)
	cmd.Env = append(os.Environ(), "CHAOS_SECRET="+secretCanary)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	began := time.Now()
	err = cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		return loaded{}, err
	}
	got := loaded{code: cmd.ProcessState.ExitCode(), took: time.Since(began), said: said.String()}
	fields := strings.Fields(out.String()) // VmHWM: 12345 kB
	if len(fields) < 2 {
		return got, fmt.Errorf("the process does not tell its memory: %q", out.String())
	}
	got.peak, err = strconv.ParseInt(fields[1], 10, 64)
	return got, err
}
