package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func create(t *testing.T, dir string) *Writer {
	t.Helper()
	w, err := Create(dir, KindSink)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func read(t *testing.T, dir string) ([]Observation, int) {
	t.Helper()
	entries, torn, err := Read[Observation](dir, KindSink)
	if err != nil {
		t.Fatal(err)
	}
	return entries, torn
}

func TestLinesOfManyWritersAreReadBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	writers := []*Writer{create(t, dir), create(t, dir)}
	var want []string
	var all sync.WaitGroup
	for i := range 200 {
		id := fmt.Sprint(i)
		want = append(want, id)
		all.Go(func() {
			if err := writers[i%2].Append(Observation{ID: id, Stage: Success, At: Now()}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	entries, torn := read(t, dir)
	var got []string
	for _, e := range entries {
		if got = append(got, e.ID); e.Stage != Success || e.At == 0 {
			t.Errorf("%+v", e)
		}
	}
	slices.Sort(got)
	if slices.Sort(want); !slices.Equal(got, want) || torn != 0 {
		t.Errorf("%d entries, %d torn", len(got), torn)
	}
}

// A killed process leaves half a line at the end of its file, and one whose disk was full in the middle.
func TestTornLinesAreCounted(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir)
	appendID := func(id string) {
		if err := w.Append(Observation{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	half := func() {
		if _, err := w.file.WriteString(`{"id":"half","ke`); err != nil {
			t.Fatal(err)
		}
	}
	appendID("a")
	half()
	w.torn.Store(true) // as after a short write
	appendID("b")
	half()
	other := create(t, dir)
	if err := other.Append(Observation{ID: "c"}); err != nil {
		t.Fatal(err)
	}
	entries, torn := read(t, dir)
	if len(entries) != 3 || entries[1].ID != "b" || torn != 2 {
		t.Errorf("%+v, %d torn", entries, torn)
	}
}

func TestALineThatIsTooLongIsRefused(t *testing.T) {
	w := create(t, t.TempDir())
	if err := w.Append(Observation{ID: strings.Repeat("x", MaxLine)}); err == nil {
		t.Error("written")
	}
}

func TestSumTellsNilFromEmptyAndPartsApart(t *testing.T) {
	sums := map[string]string{}
	for name, parts := range map[string][][]byte{
		"none": {}, "nil": {nil}, "empty": {{}}, "a": {[]byte("a")}, "a, nil": {[]byte("a"), nil}, "a, empty": {[]byte("a"), {}},
		"ab": {[]byte("ab")}, "a, b": {[]byte("a"), []byte("b")},
	} {
		sum := Sum(parts...)
		if other, taken := sums[sum]; taken {
			t.Errorf("%s and %s are alike", name, other)
		}
		sums[sum] = name
	}
}

func TestTheHashIsOfAllLedgers(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir)
	hash := func() string {
		h, err := Hash(dir)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	before := hash()
	if err := w.Append(Observation{ID: "a"}); err != nil {
		t.Fatal(err)
	}
	after := hash()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if before == after || after != hash() {
		t.Errorf("%s, %s, %s", before, after, hash())
	}
}
