package broadway

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestNumbersOfTheClockAreTimesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clock{time.Now()}
		time.Sleep(time.Hour)
		then := time.Now()
		number := c.nanos(then)
		time.Sleep(time.Minute)
		if later := c.nanos(time.Now()); later-number != int64(time.Minute) || number != then.UnixNano() {
			t.Errorf("%d, a minute later %d", number, later)
		}
		if again := c.time(number); !again.Equal(then) || time.Since(again) != time.Minute {
			t.Errorf("%v instead of %v", again, then)
		}
	})
}

// The wall clock can be set while a pipeline runs. No time-out may go by it, and a
// number that is made of a time without its monotonic reading does.
func TestNoTimeOutGoesByTheWallClock(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 20 {
		t.Fatal(len(files), err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || name == "clock.go" {
			continue
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && strings.HasPrefix(s.Sel.Name, "Unix") {
				t.Errorf("%v: %s: see clock", set.Position(s.Pos()), s.Sel.Name)
			}
			return true
		})
	}
}
