package report

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func at(minute int) time.Time { return time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC) }

func TestNewerResultsReplaceOlderOnes(t *testing.T) {
	for name, row := range map[string]struct {
		older, newer Entry
		want         uint64 // the seed of the one that stays
	}{
		"newer":                           {Entry{Scale: 1, Pass: true, At: at(1), Seed: 1}, Entry{Scale: 1, Pass: true, At: at(2), Seed: 2}, 2},
		"older":                           {Entry{Scale: 1, Pass: true, At: at(2), Seed: 1}, Entry{Scale: 1, Pass: true, At: at(1), Seed: 2}, 1},
		"smaller":                         {Entry{Scale: 1, Pass: true, At: at(1), Seed: 1}, Entry{Scale: 0.1, Pass: true, At: at(2), Seed: 2}, 1},
		"larger":                          {Entry{Scale: 0.1, Pass: true, At: at(1), Seed: 1}, Entry{Scale: 1, Pass: true, At: at(2), Seed: 2}, 2},
		"smaller, but it did not pass":    {Entry{Scale: 1, Pass: true, At: at(1), Seed: 1}, Entry{Scale: 0.1, At: at(2), Seed: 2}, 2},
		"passed, what had not passed yet": {Entry{Scale: 1, At: at(1), Seed: 1}, Entry{Scale: 1, Pass: true, At: at(2), Seed: 2}, 2},
	} {
		row.older.ID, row.newer.ID = "A1", "A1"
		var f File
		f.Merge(row.older)
		f.Merge(row.newer)
		if len(f.Entries) != 1 || f.Entries[0].Seed != row.want {
			t.Errorf("%s: %+v", name, f.Entries)
		}
	}
}

func TestScenariosAreInTheirOrder(t *testing.T) {
	var f File
	for _, id := range []string{"B11b", "C1", "B2", "A10", "B11a", "B11", "A2", "B1"} {
		f.Merge(Entry{ID: id})
	}
	var got []string
	for _, e := range f.Entries {
		got = append(got, e.ID)
	}
	if want := []string{"A2", "A10", "B1", "B2", "B11", "B11a", "B11b", "C1"}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestAPageSaysWhatWasMissedAndWhatWasSmall(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	good := Entry{ID: "A1", Title: "kills", Limit: "lost 0", Pass: true, Messages: 300_000, Scale: 1, Seed: 7, Commit: "abc", At: at(1)}
	bad := Entry{ID: "B1", Title: "storm | wind", Limit: "repeats", Reasons: []string{"dup_over 3"}, Scale: 0.05, Messages: 200_000, At: at(2)}
	page := func(entries ...Entry) string {
		if err := Update(dir, entries...); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, MarkdownFile))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if text := page(good); strings.Contains(text, "## Missed") || strings.Contains(text, "smaller than full") || !strings.Contains(text, "1.0e-05") {
		t.Errorf("%s", text)
	}
	text := page(bad) // the other one was kept
	for _, want := range []string{
		"1 of 2 scenarios", "500000 messages", "6.0e-06", "1 of the results are of runs smaller", "| A1 kills | yes |", `storm \| wind | **no** |`,
		"## Missed", "dup_over 3", "0.05",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	bad.Lost = 1
	if text := page(bad); strings.Contains(text, "rule of three") {
		t.Errorf("a bound in spite of a loss: %s", text)
	}
}
