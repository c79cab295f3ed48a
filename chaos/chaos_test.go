package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gobroadway/gobroadway/chaos/internal/scenario"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// The test binary is the worker as well, as chaos itself is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		os.Exit(worker.Main(os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}

// ciScale is small enough for all of [TestScenarios] to end within five minutes on two cores.
const ciScale = 0.02

// The scenarios that are marked for CI pass, scaled down, on real brokers.
func TestScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("needs brokers, and -short runs without")
	}
	rigs := scenario.NewRigs(t.Logf)
	defer func() {
		if err := rigs.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, s := range scenario.All() {
		if !s.CI {
			continue
		}
		t.Run(s.ID+" "+s.Title, func(t *testing.T) {
			env, err := scenario.NewEnv(s.ID, uint64(time.Now().UnixNano()), ciScale, t.TempDir(), rigs, t.Logf)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("seed %d", env.Seed)
			outcome, err := s.Run(t.Context(), env)
			if err != nil {
				t.Fatal(err)
			}
			if !outcome.Pass() {
				t.Errorf("missed:\n%s", strings.Join(outcome.Reasons(), "\n"))
			}
			t.Log(strings.Join(outcome.Notes, "\n"))
		})
	}
}

// Every scenario can be found, and says what it holds itself to.
func TestScenariosAreDescribed(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range scenario.All() {
		if seen[s.ID] {
			t.Errorf("%s stands twice", s.ID)
		}
		seen[s.ID] = true
		if s.Title == "" || s.Limit == "" || s.Run == nil || !strings.Contains("S1 S2 S3", s.Severity) {
			t.Errorf("%s lacks a title, a pass line, a severity or its function", s.ID)
		}
		if found, ok := scenario.Find(s.ID); !ok || found.Title != s.Title {
			t.Errorf("%s is not found", s.ID)
		}
	}
}
