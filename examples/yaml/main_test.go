package main

import (
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The example is run as its reader runs it.
func TestExampleRuns(t *testing.T) {
	command := exec.CommandContext(t.Context(), "go", "run", "./examples/yaml")
	command.Dir = "../.."
	out, err := command.Output()
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Len(t, lines, 5)
	require.Equal(t, "greetings: 4 succeeded, 1 failed", lines[4], "the summary comes last")
	greetings := lines[:4]
	slices.Sort(greetings) // four workers: in any order
	require.Equal(t, []string{"Hello, Ada!", "Hello, Barbara!", "Hello, Grace!", "Hello, Radia!"}, greetings)
}

func TestExampleSaysWhatIsWrongWithAFile(t *testing.T) {
	require.ErrorContains(t, run(t.Context(), "main.go", nil), "main.go:")
	require.ErrorContains(t, run(t.Context(), "none.yaml", nil), "none.yaml")
}

// Every broken file of the test data is refused, by its name, and with the exit
// code of a file that is at fault.
func TestBrokenFilesEndTheProgramWithTwo(t *testing.T) {
	files, err := filepath.Glob("../../testdata/pipelines/invalid/*.yaml")
	require.NoError(t, err)
	require.Greater(t, len(files), 50)
	for _, file := range append(files, "none.yaml") {
		err := run(t.Context(), file, nil)
		require.ErrorContains(t, err, filepath.Base(file))
		require.Equal(t, 2, exitCode(err), file)
	}
	require.Equal(t, 1, exitCode(errors.New("later")))
}
