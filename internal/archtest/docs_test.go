package archtest

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// Every exported name of a package that others can import has a comment, and that of a type or function starts with the name.
func TestExportedNamesAreDocumented(t *testing.T) {
	report(t, undocumented(readSource(t)))
}

// Every package says what it is.
func TestPackagesAreDocumented(t *testing.T) {
	s := readSource(t)
	documented := make(map[string]bool)
	for _, file := range s.parsed {
		dir, _, _ := cutLast(s.files.File(file.Pos()).Name())
		documented[dir] = documented[dir] || file.Doc.Text() != ""
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: no package comment", dir)
		}
	}
}

func cutLast(path string) (dir, name string, found bool) {
	i := strings.LastIndex(path, "/")
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

func undocumented(s source) (violations []string) {
	for _, file := range s.parsed {
		if file.Name.Name == "main" {
			continue
		}
		for _, declaration := range file.Decls {
			switch d := declaration.(type) {
			case *ast.FuncDecl:
				violations = append(violations, s.undocumentedFunction(d)...)
			case *ast.GenDecl:
				violations = append(violations, s.undocumentedSpecs(d)...)
			}
		}
	}
	return violations
}

func (s source) undocumentedFunction(f *ast.FuncDecl) []string {
	if !f.Name.IsExported() || f.Recv != nil && !exportedReceiver(f.Recv.List[0].Type) {
		return nil
	}
	return s.check(f, f.Name.Name, f.Doc)
}

// exportedReceiver tells whether a method belongs to an exported type.
func exportedReceiver(expression ast.Expr) bool {
	switch e := expression.(type) {
	case *ast.StarExpr:
		return exportedReceiver(e.X)
	case *ast.IndexExpr:
		return exportedReceiver(e.X)
	case *ast.IndexListExpr:
		return exportedReceiver(e.X)
	case *ast.Ident:
		return e.IsExported()
	}
	return false
}

func (s source) undocumentedSpecs(d *ast.GenDecl) (violations []string) {
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if !spec.Name.IsExported() {
				continue
			}
			doc := spec.Doc
			if doc == nil && !d.Lparen.IsValid() {
				doc = d.Doc
			}
			violations = append(violations, s.check(spec, spec.Name.Name, doc)...)
			violations = append(violations, s.undocumentedMethods(spec)...)
		case *ast.ValueSpec:
			violations = append(violations, s.undocumentedValue(d, spec)...)
		}
	}
	return violations
}

// undocumentedMethods looks at the methods that an interface asks for.
func (s source) undocumentedMethods(spec *ast.TypeSpec) (violations []string) {
	contract, ok := spec.Type.(*ast.InterfaceType)
	if !ok {
		return nil
	}
	for _, method := range contract.Methods.List {
		for _, name := range method.Names {
			if name.IsExported() && method.Doc.Text() == "" && method.Comment.Text() == "" && len(contract.Methods.List) > 1 {
				violations = append(violations, s.at(method)+": no comment on "+spec.Name.Name+"."+name.Name)
			}
		}
	}
	return violations
}

// undocumentedValue accepts the comment of the group for constants and variables: they are explained together.
func (s source) undocumentedValue(d *ast.GenDecl, spec *ast.ValueSpec) (violations []string) {
	if d.Tok != token.CONST && d.Tok != token.VAR {
		return nil
	}
	for _, name := range spec.Names {
		if name.IsExported() && d.Doc.Text()+spec.Doc.Text()+spec.Comment.Text() == "" {
			violations = append(violations, s.at(spec)+": no comment on "+name.Name)
		}
	}
	return violations
}

func (s source) check(node ast.Node, name string, doc *ast.CommentGroup) []string {
	text := doc.Text()
	if text == "" {
		return []string{s.at(node) + ": no comment on " + name}
	}
	for _, article := range []string{"A ", "An ", "The "} {
		text = strings.TrimPrefix(text, article)
	}
	if word, _, _ := strings.Cut(strings.ReplaceAll(text, "\n", " "), " "); strings.TrimRight(word, ".,:;") != name {
		return []string{s.at(node) + ": the comment on " + name + " starts with " + word}
	}
	return nil
}
