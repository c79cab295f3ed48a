package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPulledNothingIsLostWithinTheBound runs both, and wants what the example is
// there to show.
func TestPulledNothingIsLostWithinTheBound(t *testing.T) {
	svg := filepath.Join(t.TempDir(), "picture.svg")
	var out bytes.Buffer
	o := options{posts: 1500, unit: 50 * time.Microsecond, svg: svg, json: true}
	if err := run(t.Context(), o, &out); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Push, Pull result
		SVG        string
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if p := got.Pull; p.Produced != 1500 || p.Dropped != 0 || p.Highest > p.Bound || p.Highest == 0 {
		t.Errorf("pulled: %+v", p)
	}
	if p := got.Push; p.Produced != 1500 || p.Dropped == 0 || p.Highest != p.Bound {
		t.Errorf("pushed: %+v", p)
	}
	checkPicture(t, got.SVG)
}

func checkPicture(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for d := xml.NewDecoder(bytes.NewReader(data)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "polyline" {
			lines++
		}
	}
	if lines != 4 || strings.Contains(string(data), "NaN") {
		t.Errorf("the picture has %d lines:\n%s", lines, data)
	}
}

func TestTheTableNamesBothRuns(t *testing.T) {
	var out bytes.Buffer
	o := options{posts: 40, unit: 10 * time.Microsecond, svg: filepath.Join(t.TempDir(), "p.svg")}
	if err := run(t.Context(), o, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"pushed", "pulled", "dropped", o.svg} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out.String())
		}
	}
}
