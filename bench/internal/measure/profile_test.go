package measure

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var kept [][]byte

func earlier() {
	for range 1000 {
		kept = append(kept, make([]byte, 64<<10))
	}
}

func later() {
	for range 1000 {
		kept = append(kept, make([]byte, 64<<10))
	}
}

// TestProfilesAreOfTheWorkAlone allocates before and within it: only the latter is in the table.
func TestProfilesAreOfTheWorkAlone(t *testing.T) {
	earlier()
	dir := filepath.Join(t.TempDir(), "profiles")
	if err := profiled(dir, func() error { later(); return nil }); err != nil {
		t.Fatal(err)
	}
	kept = nil
	if err := describe(t.Context(), dir, Round{Workload: "kafka"}); err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds() {
		for _, name := range []string{k.name + ".pprof", k.name + ".txt", "round.json"} {
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	table, err := os.ReadFile(filepath.Join(dir, "allocs.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(table), "measure.later") || strings.Contains(string(table), "measure.earlier") {
		t.Errorf("the table of allocations has not what was allocated within the work alone:\n%s", table)
	}
}
