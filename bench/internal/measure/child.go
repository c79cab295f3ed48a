package measure

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Round is one run of one system, as it is kept in the state file.
type Round struct {
	Workload string  `json:"workload"`
	System   string  `json:"system"`
	Version  string  `json:"version"`
	Round    int     `json:"round"`
	Messages int     `json:"messages"`
	Seconds  float64 `json:"seconds"`
	CPU      float64 `json:"cpu_s"`
	RSS      float64 `json:"rss_mb"`
	Mallocs  float64 `json:"allocs_per_message"`
	// Grown is by how many bytes the process grew at most while the system ran, Flight how many were in flight at most, 0 when unknown.
	Grown   float64      `json:"grown_bytes,omitempty"`
	Flight  float64      `json:"flight_bytes,omitempty"`
	Latency *Percentiles `json:"latency_ms,omitempty"`
	Commit  string       `json:"commit"`
	Time    string       `json:"time"`
}

// Rate is messages a second.
func (r Round) Rate() float64 { return float64(r.Messages) / r.Seconds }

// RunChild is what the process of one round does: it runs the system and writes its Output to the standard output.
func RunChild(ctx context.Context, s System) error {
	var in Input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		return fmt.Errorf("read the input: %w", err)
	}
	base, err := memory("VmRSS:")
	if err != nil {
		return err
	}
	begun, err := used()
	if err != nil {
		return err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var out Output
	run := func() (err error) {
		out, err = s.Run(ctx, in)
		return err
	}
	if in.Profile != "" {
		err = profiled(in.Profile, run)
	} else {
		err = run()
	}
	if err != nil {
		return err
	}
	runtime.ReadMemStats(&after)
	out.Begun += begun // a system that is a process of its own has said its own
	if out.Peak == 0 {
		out.Mallocs, out.Base = after.Mallocs-before.Mallocs, base
		if out.Peak, err = memory("VmHWM:"); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// spawn runs one round in a process of its own.
func spawn(ctx context.Context, w Workload, s System, in Input) (Round, error) {
	self, err := os.Executable()
	if err != nil {
		return Round{}, err
	}
	stdin, err := json.Marshal(in)
	if err != nil {
		return Round{}, err
	}
	var stdout, stderr bytes.Buffer
	child := exec.CommandContext(ctx, self, "child", w.Name, s.Name)
	child.Stdin, child.Stdout, child.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := child.Run(); err != nil {
		return Round{}, fmt.Errorf("%s, %s: %w\n%s", w.Name, s.Name, err, tail(stderr.Bytes()))
	}
	var out Output
	if err := json.Unmarshal(stdout.Bytes(), &out); err != nil {
		return Round{}, fmt.Errorf("%s, %s: its output: %w", w.Name, s.Name, err)
	}
	if err := out.check(in); err != nil {
		return Round{}, fmt.Errorf("%s, %s: %w", w.Name, s.Name, err)
	}
	return Round{
		Workload: w.Name, System: s.Name, Version: s.Version,
		Messages: out.Messages, Seconds: out.Elapsed.Seconds(),
		CPU:     (child.ProcessState.UserTime() + child.ProcessState.SystemTime() - out.Begun).Seconds(),
		RSS:     float64(out.Peak) / (1 << 20),
		Mallocs: float64(out.Mallocs) / float64(max(out.Messages, 1)),
		Grown:   float64(max(out.Peak-out.Base, 0)), Flight: float64(out.Flight), Latency: out.Latency,
		Time: time.Now().UTC().Format(time.RFC3339),
	}, nil
}

// memory is what this process has resident (VmRSS:), or the most that it had (VmHWM:), in bytes. The rusage of a child tells its parent's,
// when that is more.
func memory(what string) (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if size, ok := strings.CutPrefix(line, what); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(size), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no %s", what)
}

// check refuses a run that has not done all of the work.
func (o Output) check(in Input) error {
	if o.Messages != in.Messages {
		return fmt.Errorf("did %d of %d messages", o.Messages, in.Messages)
	}
	if want := WantSum(in.Messages); o.Sum != want {
		return fmt.Errorf("read %d out of the messages, not %d: some were not read, or twice", o.Sum, want)
	}
	if o.Elapsed <= 0 {
		return fmt.Errorf("took %v", o.Elapsed)
	}
	return nil
}

func tail(b []byte) []byte { return b[max(0, len(b)-4000):] }
