package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// tornReports is E6: reports of workers, on either broker, and the news example with its database and site.
func tornReports(ctx context.Context, env *Env) (*Outcome, error) {
	all, err := onBoth(ctx, env, killedReports)
	if err != nil {
		return all, err
	}
	full, err := bothAtOnce(ctx, env, fullDisk)
	if err != nil {
		return all, err
	}
	all.add(full)
	news, err := killedNews(ctx, env)
	if err != nil {
		return all, err
	}
	all.add(news)
	return all, nil
}

// reporting is a worker that writes a report for each batch.
func (e *either) reporting(dir string) worker.Config {
	cfg := e.config
	cfg.Batch, cfg.Report = &worker.Batch{Size: 20, Timeout: 50 * time.Millisecond, Concurrency: 2}, dir
	cfg.MaxAttempts, cfg.Backoff = 20, 20*time.Millisecond
	if cfg.Kafka != nil {
		kafka := *cfg.Kafka
		kafka.SessionTimeout, kafka.HeartbeatInterval = 1500*time.Millisecond, 300*time.Millisecond
		cfg.Kafka = &kafka
	}
	return cfg
}

// killedReports kills workers while they write a report, and just after.
func killedReports(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	kills := env.Times(30, 4)
	n := 800 * kills
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	dir := filepath.Join(run.dir, "reports")
	cfg := run.reporting(dir)
	cfg.Delay = time.Millisecond
	random := env.Rand("kills " + run.kind)
	sweep := &sweep{run: run, cfg: cfg, random: random, hits: map[string]int{}}
	var lives []step
	for i := range kills {
		lives = append(lives, step{at: []string{worker.WithinReport, worker.AfterReport}[i%2], most: 10})
	}
	var torn error
	for _, life := range lives {
		if err := sweep.all(ctx, []step{life}); err != nil {
			return nil, err
		}
		torn = errors.Join(torn, worker.ReadReports(dir, map[string]int{}))
	}
	if _, err := run.start("w0", cfg); err != nil {
		return nil, err
	}
	if err := run.drained(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	outcome, err := run.finish(ctx, check.Rules{Duplicates: kills * run.bound})
	if err != nil {
		return nil, err
	}
	outcome.Must(torn == nil, "a reader has seen: %v", torn)
	found := map[string]int{}
	if err := worker.ReadReports(dir, found); err != nil {
		return nil, err
	}
	again, err := reported(outcome, run, found)
	outcome.Must(again <= kills*run.bound, "%d messages stand in several reports, of at most %d", again, kills*run.bound)
	outcome.Note("%d messages, %d kills while a report was written or just after: every message is in the reports, %d of them again", n, sweep.kills, again)
	return outcome, err
}

// reported compares reports with the producers' ledger: the same ids. again is how many stand there again.
func reported(outcome *Outcome, run *either, found map[string]int) (again int, err error) {
	all, _, err := ledger.Read[ledger.Produced](run.dir, ledger.KindProduced)
	if err != nil {
		return 0, err
	}
	sent := map[string]bool{}
	var missing []string
	for _, entry := range all {
		if entry.State != ledger.Acked {
			continue
		}
		if sent[entry.ID] = true; found[entry.ID] == 0 {
			missing = append(missing, entry.ID)
		}
		again += max(0, found[entry.ID]-1)
	}
	outcome.Must(len(missing) == 0, "%d ids are in no report: %.200q", len(missing), missing)
	outcome.Must(len(found) == len(sent), "%d ids in reports of %d that were sent", len(found), len(sent))
	return again, nil
}

// fullDisk lets the reports' disk become full, again and again. Each time somebody makes room, after a while.
func fullDisk(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	const size = 256 << 10
	n, times := env.N(10_000, 4_000), env.Times(5, 2)
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	prefix, disk, err := rig.Wrapped(run.dir, size)
	if err != nil {
		return nil, err
	}
	p, err := run.start("w0", run.reporting(disk), prefix...)
	if err != nil {
		return nil, err
	}
	archive := &archive{dir: filepath.Join(run.dir, "archive"), from: filepath.Join("/proc", fmt.Sprint(p.PID()), "root", disk)}
	fault := run.journal.begin(ledger.Fault{Kind: "full disk", Clean: true})
	fulls, seen := 0, int64(0)
	for run.handled() < int64(n) {
		err := poll(ctx, time.Minute, "the disk is full, or all is done", func() (bool, error) {
			return p.Last().Stats["refused"] > seen || run.handled() >= int64(n), nil
		})
		if err != nil {
			return nil, err
		}
		if seen = p.Last().Stats["refused"]; fulls < times && run.handled() < int64(n) {
			fulls++
			if err := sleep(ctx, env.For(10*time.Second, time.Second)); err != nil {
				return nil, err
			}
		}
		if err := archive.take(); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(run.journal.end(fault), run.drained(ctx, time.Minute), archive.take()); err != nil {
		return nil, err
	}
	refused := p.Last().Stats["refused"]
	outcome, err := run.finish(ctx, check.Rules{})
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	if err := worker.ReadReports(archive.dir, found); err != nil {
		return nil, err
	}
	again, err := reported(outcome, run, found)
	outcome.Must(again == 0, "%d messages are in several reports", again)
	outcome.Must(outcome.Total(check.Duplicates) == 0, "%d messages came twice", outcome.Total(check.Duplicates))
	outcome.Must(fulls > 0, "the disk was never full")
	outcome.Note("%d messages on a disk of %d KiB that was full %d times: %d reports did not fit, and were written when there was room", n, size>>10, fulls, refused)
	return outcome, err
}

// archive takes whole reports away from a disk.
type archive struct{ from, dir string }

func (a *archive) take() error {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(a.from)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		name := filepath.Join(a.from, entry.Name())
		text, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(a.dir, entry.Name()), text, 0o600)
		}
		if err = errors.Join(err, os.Remove(name)); err != nil {
			return err
		}
	}
	return nil
}

// news is the example, built, in a folder of its own.
type news struct {
	program, dir string
	args         []string
	log          string
}

// buildNews builds the example. args are its flags, but for -dir and -json.
func buildNews(ctx context.Context, env *Env, args ...string) (*news, error) {
	_, dir, err := env.newRun()
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	n := &news{program: filepath.Join(dir, "news"), dir: filepath.Join(dir, "data"), log: filepath.Join(dir, "news.log")}
	n.args = append([]string{"-dir", n.dir, "-json", "-metrics", ""}, args...)
	build := exec.CommandContext(ctx, "go", "build", "-o", n.program, "./examples/news")
	build.Dir = ".." // the module of the library, beside chaos
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the news: %w: %s", err, out)
	}
	return n, nil
}

// start starts it. What it says in the end goes to out.
func (n *news) start(out *bytes.Buffer) (*exec.Cmd, func() error, error) {
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(n.program, n.args...)
	cmd.Stdout, cmd.Stderr = out, log
	if err := cmd.Start(); err != nil {
		return nil, nil, errors.Join(err, log.Close())
	}
	return cmd, func() error { return errors.Join(cmd.Wait(), log.Close()) }, nil
}

// effects counts the publishings that the platforms' own ledger has.
func (n *news) effects() int {
	text, err := os.ReadFile(filepath.Join(n.dir, "ledger.jsonl"))
	if err != nil {
		return 0 // not yet there
	}
	return bytes.Count(text, []byte(`"kind":"effect"`))
}

// summary is what the news says in the end.
type newsSummary struct {
	Posts, Rows, Lost, Duplicates int
	DeadLetters                   int `json:"dead_letters"`
	Topic                         string
}

// finish lets it run to its end.
func (n *news) finish() (newsSummary, error) {
	var out bytes.Buffer
	_, wait, err := n.start(&out)
	if err != nil {
		return newsSummary{}, err
	}
	failure := wait()
	var sum newsSummary
	if err := json.Unmarshal(out.Bytes(), &sum); err != nil {
		return sum, errors.Join(failure, fmt.Errorf("the news ended without a summary, see %s: %w", n.log, err))
	}
	return sum, nil
}

// halves are files of the site that a browser would find half-written.
func (n *news) halves() (torn []string, err error) {
	ends := map[string]string{".html": "</html>", ".json": "}", ".pdf": "%%EOF"}
	err = filepath.WalkDir(filepath.Join(n.dir, "site"), func(name string, entry fs.DirEntry, err error) error {
		end, known := ends[filepath.Ext(name)]
		if err != nil || entry.IsDir() || !known || strings.HasPrefix(entry.Name(), ".") {
			return err
		}
		text, err := os.ReadFile(name)
		if !bytes.HasSuffix(bytes.TrimSpace(text), []byte(end)) {
			torn = append(torn, name)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return torn, nil
	}
	return torn, err
}

// killedNews kills the news example at random moments of its work, and lets it finish.
func killedNews(ctx context.Context, env *Env) (*Outcome, error) {
	kills := env.Times(40, 5)
	posts := 25 * (kills + 1)
	n, err := buildNews(ctx, env, "-queue", "none", "-posts", fmt.Sprint(posts), "-workers", "4")
	if err != nil {
		return nil, err
	}
	random := env.Rand("news")
	outcome := new(Outcome)
	for i := range kills {
		due := int(float64(2*posts) * (float64(i) + random.Float64()) / float64(kills+1))
		if err := n.killAt(ctx, due); err != nil {
			return nil, fmt.Errorf("kill %d: %w", i+1, err)
		}
		torn, err := n.halves()
		if err != nil {
			return nil, err
		}
		outcome.Must(len(torn) == 0, "kill %d: half files: %.200q", i+1, torn)
	}
	sum, err := n.finish()
	if err != nil {
		return nil, err
	}
	torn, err := n.halves()
	if err != nil {
		return nil, err
	}
	slices.Sort(torn)
	outcome.Must(len(torn) == 0, "half files: %.200q", torn)
	outcome.Must(sum.Posts == posts && sum.Rows == 3*posts, "%d posts and %d rows of %d and %d", sum.Posts, sum.Rows, posts, 3*posts)
	outcome.Must(sum.Lost == 0 && sum.Duplicates == 0, "%d posts lost, %d published or reported twice", sum.Lost, sum.Duplicates)
	outcome.Note("the news, killed %d times: its database opened each time; %d posts, %d rows, lost %d, twice %d", kills, sum.Posts, sum.Rows, sum.Lost, sum.Duplicates)
	return outcome, nil
}

// killAt starts the news and kills it once the platforms have had so many effects, and a moment has passed.
func (n *news) killAt(ctx context.Context, due int) error {
	cmd, wait, err := n.start(new(bytes.Buffer))
	if err != nil {
		return err
	}
	reached := poll(ctx, time.Minute, fmt.Sprintf("%d publishings", due), func() (bool, error) { return n.effects() >= due, nil })
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	_ = wait() // it was killed
	return reached
}
