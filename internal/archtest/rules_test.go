package archtest

import (
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// The rules find what they are for, and nothing else: each case is a file and what is wrong with it, by line.
func TestTheRulesFindWhatTheyAreFor(t *testing.T) {
	all := func(s source) []string {
		return slices.Concat(contextFields(s), mutexes(s), packageVariables(s), undocumented(s))
	}
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"context": {
			"type call struct {\n\tctx context.Context\n\tdo func(context.Context) error\n}",
			[]string{"x.go:3: a context.Context in a struct"},
		},
		"mutexes": {
			"type one struct{ mu sync.Mutex }\ntype two struct {\n\ta, b sync.Mutex\n}\ntype mixed struct {\n\tsync.RWMutex\n\tc sync.Mutex\n}",
			[]string{"x.go:3: 2 mutexes in one type", "x.go:6: 2 mutexes in one type"},
		},
		"state": {
			"var ErrX, errY = errors.New(\"x\"), 1\nvar errZ = errors.New(\"z\")\nvar _ io.Reader = (*r)(nil)\nvar count int\nvar table = map[string]int{}\nvar read = []int{1}\nfunc f() { table[1]++; read := read; read[0] = 2 }\n\n//go:embed x\nvar text string",
			[]string{"x.go:2: package state: ErrX", "x.go:5: package state: count", "x.go:6: package state: table", "x.go:2: no comment on ErrX"},
		},
		"docs": {
			"// Good is.\ntype Good int\n\n// Wrong name.\nfunc Bad() {}\n\nfunc (Good) Bare() {}\n\nfunc (hidden) Bare() {}\n\n// A Thing is.\ntype Thing interface {\n\tOne()\n\tTwo() // does\n}\n\n// Some.\nconst (\n\tA = 1\n)\n\nconst B = 2",
			[]string{
				"x.go:6: the comment on Bad starts with Wrong", "x.go:8: no comment on Bare", "x.go:14: no comment on Thing.One",
				"x.go:23: no comment on B",
			},
		},
	} {
		got := all(parseText(t, "package x\n"+c.text))
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
}

func TestNestingIsCountedByStatement(t *testing.T) {
	for text, want := range map[string]int{
		"x()":          0,
		"if a { x() }": 1,
		"if a { x() } else if b { y() } else { z() }":  1,
		"if a { } else if b { for { } }":               2,
		"for { switch { case a: if b { x() } } }":      3,
		"f := func() { for { } }; f()":                 1,
		"for { go func() { select { case <-c: } }() }": 2,
		"if func() bool { for { } }() { }":             1,
		"for range x { for range y { } }; if a { }":    2,
	} {
		s := parseText(t, "package x\nfunc f() { "+text+" }")
		s.functions(func(f *ast.FuncDecl) {
			if got := nesting(f.Body); got != want {
				t.Errorf("%s: nesting %d, want %d", text, got, want)
			}
		})
	}
}

func TestTheNinthDecile(t *testing.T) {
	var measures []measure
	for i := range 10 {
		measures = append(measures, measure{value: 10 - i})
	}
	if got := p90(measures); got != 9 {
		t.Errorf("of 1 to 10: %d, want 9", got)
	}
	if got := p90(measures[:1]); got != 1 {
		t.Errorf("of one: %d, want it", got)
	}
}
