package worker

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
)

func TestReportsAreThereWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, unfinished+"old"), []byte(`{"id":"torn`), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := openReports(dir, new(failPoint))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"1", "2"} {
		if err := r.write(name, []ledger.Observation{{ID: "a"}, {ID: "b" + name}}); err != nil {
			t.Fatal(err)
		}
	}
	found := map[string]int{}
	if err := ReadReports(dir, found); err != nil || len(found) != 3 || found["a"] != 2 || found["b1"] != 1 {
		t.Errorf("%v, %v", found, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
	for _, text := range []string{"", `{"id":"c"}`, "{\"id\":\"c\n", "{\"id\":\"c\"}\n{\"id"} {
		if err := os.WriteFile(filepath.Join(dir, "3"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if ReadReports(dir, found) == nil {
			t.Errorf("%q is not found to be torn", text)
		}
	}
}
