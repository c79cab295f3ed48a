package rig

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// A Report is one line that a worker process writes to its standard output: it is ready, or how it fares.
type Report struct {
	// At is CLOCK_MONOTONIC, in nanoseconds.
	At int64
	// Ready says that the pipeline runs.
	Ready bool
	// Unsettled is what the pipeline holds, Handled what its sink has written so far.
	Unsettled, Handled int64
	// RSS is in bytes.
	RSS             int64
	Goroutines, FDs int
	// Err is why the pipeline is unhealthy.
	Err string
	// Waiting is what the pipeline waits for.
	Waiting string
	// Stats are counts of a worker's sources, by name.
	Stats map[string]int64
}

// Process is one worker: this program itself, run as "worker -config FILE". It is ended when its standard input is.
type Process struct {
	// Name is unique in a scenario, restarts included.
	Name string
	// Started is when it was.
	Started time.Time

	cmd   *exec.Cmd
	stdin io.WriteCloser
	ready chan struct{} // closed by the first Report that says so
	done  chan struct{} // closed once it has ended

	mu     sync.Mutex
	last   Report
	peak   int64
	failed error
}

// StartProcess starts a worker with a configuration that is written to dir/NAME.json. Its standard error goes to dir/NAME.log.
// seen, if not nil, is told each report. wrapper, if any, is a command that runs the worker, such as [Wrapped]'s.
func StartProcess(dir, name string, config any, seen func(Report), wrapper ...string) (*Process, error) {
	text, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, name+".json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	argv := append(wrapper[:len(wrapper):len(wrapper)], program, "worker", "-config", file)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "CHAOS_WORKER=1")
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	p := &Process{Name: name, Started: time.Now(), cmd: cmd, stdin: stdin, ready: make(chan struct{}), done: make(chan struct{})}
	go p.watch(stdout, log, seen) // ends with the process: whoever waits for that waits for done
	return p, nil
}

// watch reads reports until the process has ended.
func (p *Process) watch(stdout io.Reader, log *os.File, seen func(Report)) {
	defer close(p.done)
	var ready sync.Once
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var report Report
		if json.Unmarshal(lines.Bytes(), &report) != nil {
			continue // the last line of a killed process
		}
		p.mu.Lock()
		p.last, p.peak = report, max(p.peak, report.RSS)
		p.mu.Unlock()
		if report.Ready {
			ready.Do(func() { close(p.ready) })
		}
		if seen != nil {
			seen(report)
		}
	}
	err := p.cmd.Wait()
	p.mu.Lock()
	p.failed = errors.Join(err, log.Close())
	p.mu.Unlock()
}

// Last is the last report, and PeakRSS the most memory that any showed, in bytes.
func (p *Process) Last() Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// PeakRSS is the highest resident size that was reported, in bytes.
func (p *Process) PeakRSS() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.peak
}

// PID is the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ready is closed once the worker's pipeline runs.
func (p *Process) Ready() <-chan struct{} { return p.ready }

// Done is closed once the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ended says whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Send writes a command to the worker's standard input, as a line of JSON.
func (p *Process) Send(command any) error {
	text, err := json.Marshal(command)
	if err != nil {
		return err
	}
	_, err = p.stdin.Write(append(text, '\n'))
	return err
}

// Signal sends a signal: SIGKILL, SIGTERM, SIGSTOP, SIGCONT.
func (p *Process) Signal(signal syscall.Signal) error { return p.cmd.Process.Signal(signal) }

// Kill ends the worker by SIGKILL and returns when it is gone.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// Terminate sends SIGTERM and waits for the end at most limit; then it kills, and says so. The exit code is returned, -1 after a signal.
func (p *Process) Terminate(limit time.Duration) (code int, err error) {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return -1, err
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.ExitCode(), nil
	case <-timer.C:
		return -1, errors.Join(fmt.Errorf("worker %s does not end within %v of SIGTERM", p.Name, limit), p.Kill())
	}
}

// ExitCode is the exit code of a process that has ended, -1 after a signal.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }
