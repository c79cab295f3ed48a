package inproc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// benthosShape says how a stream of Benthos is built: see the command internal/benthos, which runs it in a process of its own.
type benthosShape struct {
	// size is how many messages its input makes at once, and threads how many processors there are.
	size, threads int
	// collect is the size of the batches that its output collects; with 0 it writes what comes, as it comes.
	collect int
	// inFlight is how many batches are written at once.
	inFlight int
}

// system is a stream of that shape, which runs a part of the messages.
func (b benthosShape) system(name string, fraction float64) measure.System {
	return measure.System{Name: name, Version: benthosVersion, Fraction: fraction, Setup: buildBenthos, Run: b.run}
}

const benthosProgram = "benthos"

// buildBenthos builds the command.
func buildBenthos(ctx context.Context, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, benthosProgram), "github.com/gobroadway/gobroadway/bench/internal/benthos")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, text)
	}
	return nil
}

// run makes, processes and writes all.
func (b benthosShape) run(ctx context.Context, in measure.Input) (out measure.Output, err error) {
	stdin, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	program, err := filepath.Abs(filepath.Join(in.Built, benthosProgram))
	if err != nil {
		return out, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, strconv.Itoa(b.size), strconv.Itoa(b.threads), strconv.Itoa(b.collect), strconv.Itoa(b.inFlight))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return out, fmt.Errorf("%w\n%s", err, stderr.Bytes())
	}
	return out, json.Unmarshal(stdout.Bytes(), &out)
}
