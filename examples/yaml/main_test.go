package main

import (
	"os/exec"
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
