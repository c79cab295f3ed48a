package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// source is all Go code of this module that is not a test.
type source struct {
	files  *token.FileSet
	parsed []*ast.File
}

// root is the module's directory.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// readSource parses the module. Directories with a go.mod of their own are other modules.
func readSource(t *testing.T) source {
	t.Helper()
	s := source{files: token.NewFileSet()}
	top := root(t)
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != top && skipped(path, entry.Name()) {
			return fs.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(s.files, filepath.ToSlash(name), text, parser.ParseComments)
		s.parsed = append(s.parsed, file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func skipped(path, name string) bool {
	if name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
		return true
	}
	_, err := os.Stat(filepath.Join(path, "go.mod"))
	return err == nil
}

// at is the file:line of a node.
func (s source) at(node ast.Node) string {
	position := s.files.Position(node.Pos())
	return position.Filename + ":" + strconv.Itoa(position.Line)
}

// where is the file:line of an import.
func where(t *testing.T, p listed, imported string) string {
	t.Helper()
	path, _ := ours(p.ImportPath)
	for _, name := range p.GoFiles {
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, filepath.Join(root(t), path, name), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			if spec.Path.Value == strconv.Quote(imported) {
				return path + "/" + name + ":" + strconv.Itoa(files.Position(spec.Pos()).Line)
			}
		}
	}
	return path
}

// parseText makes a source of one file, for the tests of the rules themselves.
func parseText(t *testing.T, text string) source {
	t.Helper()
	s := source{files: token.NewFileSet()}
	file, err := parser.ParseFile(s.files, "x.go", text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	s.parsed = []*ast.File{file}
	return s
}
