package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
)

// State of a package is state that two pipelines share. What remains are errors to compare with, values that are made once,
// unexported tables that nobody writes to, embedded files, and checks of interfaces.
func TestNoMutablePackageState(t *testing.T) {
	report(t, packageVariables(readSource(t)))
}

func packageVariables(s source) (violations []string) {
	written := s.writtenNames()
	for _, file := range s.parsed {
		dir := path.Dir(s.files.File(file.Pos()).Name())
		for _, declaration := range file.Decls {
			general, ok := declaration.(*ast.GenDecl)
			if !ok || general.Tok != token.VAR {
				continue
			}
			for _, spec := range general.Specs {
				value := spec.(*ast.ValueSpec)
				if !constant(general, value) && !table(value, dir, written) {
					violations = append(violations, fmt.Sprintf("%s: package state: %s", s.at(value), value.Names[0].Name))
				}
			}
		}
	}
	return violations
}

// constant tells whether a variable of a package can pass for a constant.
func constant(general *ast.GenDecl, value *ast.ValueSpec) bool {
	if value.Names[0].Name == "_" || strings.Contains(directives(general.Doc)+directives(value.Doc), "//go:embed") {
		return true
	}
	if len(value.Values) != 1 {
		return false
	}
	call, ok := value.Values[0].(*ast.CallExpr)
	return ok && slices.Contains([]string{
		"errors.New", "fmt.Errorf", "regexp.MustCompile", "template.Must", "crc32.MakeTable", "strings.NewReplacer",
		"netip.MustParsePrefix", "netip.MustParseAddr",
	}, qualified(call.Fun))
}

// table tells whether a variable is an unexported composite literal that its package never writes to, as far as can be seen.
func table(value *ast.ValueSpec, dir string, written map[string]bool) bool {
	if len(value.Names) != 1 || len(value.Values) != 1 || value.Names[0].IsExported() || written[dir+"."+value.Names[0].Name] {
		return false
	}
	_, ok := value.Values[0].(*ast.CompositeLit)
	return ok
}

// writtenNames collects, per directory, what is assigned to, counted, cleared, or has its address taken at package level.
func (s source) writtenNames() map[string]bool {
	written := make(map[string]bool)
	for _, file := range s.parsed {
		dir := path.Dir(s.files.File(file.Pos()).Name())
		ast.Inspect(file, func(node ast.Node) bool {
			for _, target := range targets(node) {
				if name := packageLevel(target); name != "" {
					written[dir+"."+name] = true
				}
			}
			return true
		})
	}
	return written
}

// targets are the expressions that a statement writes to.
func targets(node ast.Node) []ast.Expr {
	switch n := node.(type) {
	case *ast.AssignStmt:
		return n.Lhs
	case *ast.IncDecStmt:
		return []ast.Expr{n.X}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			return []ast.Expr{n.X}
		}
	case *ast.CallExpr:
		if name, ok := n.Fun.(*ast.Ident); ok && (name.Name == "delete" || name.Name == "clear") {
			return n.Args
		}
	}
	return nil
}

// packageLevel is the name at the root of an expression, unless it is a local one.
func packageLevel(expression ast.Expr) string {
	switch e := expression.(type) {
	case *ast.IndexExpr:
		return packageLevel(e.X)
	case *ast.SelectorExpr:
		return packageLevel(e.X)
	case *ast.StarExpr:
		return packageLevel(e.X)
	case *ast.ParenExpr:
		return packageLevel(e.X)
	case *ast.Ident:
		if e.Obj == nil { // declared in another file
			return e.Name
		}
		switch e.Obj.Decl.(type) {
		case *ast.AssignStmt, *ast.Field: // a local one, or a parameter
			return ""
		}
		return e.Name
	}
	return ""
}

// directives returns the //go: lines of a comment, which Text leaves out.
func directives(group *ast.CommentGroup) string {
	if group == nil {
		return ""
	}
	var found strings.Builder
	for _, comment := range group.List {
		if strings.HasPrefix(comment.Text, "//go:") {
			found.WriteString(comment.Text + "\n")
		}
	}
	return found.String()
}
