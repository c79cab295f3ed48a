package archtest

import (
	"cmp"
	"fmt"
	"go/ast"
	"slices"
	"testing"
)

// The budgets, over all code that is not a test.
const (
	functionP90, functionMax = 30, 70
	nestingP90, nestingMax   = 2, 4
	fileP90                  = 400
)

// measure is one measured thing and where it is.
type measure struct {
	value int
	what  string
}

// p90 is the value that nine of ten do not exceed.
func p90(measures []measure) int {
	slices.SortFunc(measures, func(a, b measure) int { return cmp.Compare(a.value, b.value) })
	return measures[(len(measures)*9+9)/10-1].value
}

// checkBudget reports each measure above most, and the largest if the ninth decile is above p90limit. most 0 is no maximum.
func checkBudget(t *testing.T, name string, measures []measure, p90limit, most int) {
	t.Helper()
	if len(measures) == 0 {
		t.Fatalf("%s: nothing measured", name)
	}
	got := p90(measures)
	if got > p90limit {
		t.Errorf("%s: p90 is %d, budget %d; the largest:", name, got, p90limit)
		for _, m := range measures[max(0, len(measures)-10):] {
			t.Errorf("  %d: %s", m.value, m.what)
		}
	}
	for _, m := range measures {
		if most > 0 && m.value > most {
			t.Errorf("%s: %d, budget %d: %s", name, m.value, most, m.what)
		}
	}
	t.Logf("%s: p90 %d of %d, max %d of %d, over %d", name, got, p90limit, measures[len(measures)-1].value, most, len(measures))
}

// functions calls do for each declared function with a body.
func (s source) functions(do func(*ast.FuncDecl)) {
	for _, file := range s.parsed {
		for _, declaration := range file.Decls {
			if function, ok := declaration.(*ast.FuncDecl); ok && function.Body != nil {
				do(function)
			}
		}
	}
}

func TestFunctionsAreShort(t *testing.T) {
	s := readSource(t)
	var measures []measure
	s.functions(func(f *ast.FuncDecl) {
		// From "func": the comment above does not count.
		size := s.files.Position(f.End()-1).Line - s.files.Position(f.Type.Pos()).Line + 1
		measures = append(measures, measure{size, s.at(f.Name) + " " + f.Name.Name})
	})
	checkBudget(t, "lines of a function", measures, functionP90, functionMax)
}

func TestFunctionsAreFlat(t *testing.T) {
	s := readSource(t)
	var measures []measure
	s.functions(func(f *ast.FuncDecl) {
		measures = append(measures, measure{nesting(f.Body), s.at(f.Name) + " " + f.Name.Name})
	})
	checkBudget(t, "nesting of a function", measures, nestingP90, nestingMax)
}

// nesting is how deep if, for, switch and select go. An else-if is as deep as its if; a function literal is as deep as where it stands.
func nesting(node ast.Node) int {
	deepest := 0
	var walk func(node ast.Node, depth int)
	walk = func(node ast.Node, depth int) {
		deepest = max(deepest, depth)
		ast.Inspect(node, func(child ast.Node) bool {
			if child == nil || child == node {
				return true
			}
			switch statement := child.(type) {
			case *ast.IfStmt:
				walkIf(statement, depth, walk)
				return false
			case *ast.ForStmt, *ast.RangeStmt, *ast.SwitchStmt, *ast.TypeSwitchStmt, *ast.SelectStmt:
				walk(child, depth+1)
				return false
			}
			return true
		})
	}
	walk(node, 0)
	return deepest
}

// walkIf walks a chain of else-ifs at one depth.
func walkIf(statement *ast.IfStmt, depth int, walk func(ast.Node, int)) {
	for {
		walk(&ast.ParenExpr{X: statement.Cond}, depth)
		if statement.Init != nil {
			walk(&ast.BlockStmt{List: []ast.Stmt{statement.Init}}, depth)
		}
		walk(statement.Body, depth+1)
		next, chained := statement.Else.(*ast.IfStmt)
		if !chained {
			break
		}
		statement = next
	}
	if statement.Else != nil {
		walk(statement.Else, depth+1)
	}
}

func TestFilesAreShort(t *testing.T) {
	s := readSource(t)
	var measures []measure
	for _, file := range s.parsed {
		handle := s.files.File(file.Pos())
		measures = append(measures, measure{handle.LineCount(), handle.Name()})
	}
	checkBudget(t, "lines of a file", measures, fileP90, 0)
}

func TestNoInitFunctions(t *testing.T) {
	s := readSource(t)
	s.functions(func(f *ast.FuncDecl) {
		if f.Recv == nil && f.Name.Name == "init" {
			t.Errorf("%s: init", s.at(f))
		}
	})
}

// A context belongs to a call: stored, it outlives or cuts short what it was not made for.
func TestNoContextInStructs(t *testing.T) {
	report(t, contextFields(readSource(t)))
}

// One type, one mutex: two in one type have an order that nobody wrote down.
func TestAtMostOneMutexPerType(t *testing.T) {
	report(t, mutexes(readSource(t)))
}

func report(t *testing.T, violations []string) {
	t.Helper()
	for _, violation := range violations {
		t.Error(violation)
	}
}

// structs calls do for each struct type.
func (s source) structs(do func(*ast.StructType)) {
	for _, file := range s.parsed {
		ast.Inspect(file, func(node ast.Node) bool {
			if structure, ok := node.(*ast.StructType); ok {
				do(structure)
			}
			return true
		})
	}
}

// qualified writes a type as pkg.Name, without pointer, or returns "".
func qualified(expression ast.Expr) string {
	if star, ok := expression.(*ast.StarExpr); ok {
		expression = star.X
	}
	selector, ok := expression.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if name, ok := selector.X.(*ast.Ident); ok {
		return name.Name + "." + selector.Sel.Name
	}
	return ""
}

func contextFields(s source) (violations []string) {
	s.structs(func(structure *ast.StructType) {
		for _, field := range structure.Fields.List {
			if qualified(field.Type) == "context.Context" {
				violations = append(violations, s.at(field)+": a context.Context in a struct")
			}
		}
	})
	return violations
}

func mutexes(s source) (violations []string) {
	s.structs(func(structure *ast.StructType) {
		held := 0
		for _, field := range structure.Fields.List {
			if name := qualified(field.Type); name == "sync.Mutex" || name == "sync.RWMutex" {
				held += max(1, len(field.Names))
			}
		}
		if held > 1 {
			violations = append(violations, fmt.Sprintf("%s: %d mutexes in one type", s.at(structure), held))
		}
	})
	return violations
}
