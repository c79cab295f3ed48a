package pipelines

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Bounds of what a file may ask for. They are far beyond what a person writes;
// what is beyond them was written to exhaust memory.
const (
	maxFileBytes = 256 << 10
	maxNodes     = 100_000
	maxDepth     = 100
)

// place is where something stands in a file.
type place struct{ line, column int }

// document is a file while it is read: what is in it, what is wrong with it,
// and where each key stands.
type document struct {
	file   string
	logger *slog.Logger
	dir    string // relative paths in the file start here
	root   *yaml.Node

	problems []Problem
	more     int
	places   map[string]place // by path
	broken   map[string]bool  // paths whose value could not be taken
	known    map[string]bool  // keys that some section has
	nodes    int              // visited so far, aliases expanded
	tooDeep  bool             // that maxDepth was reached has been reported
	warnings []string
}

// readBounded reads a file up to one byte beyond limit.
func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	return data, errors.Join(err, f.Close())
}

// parse turns text into a document. Only what makes all the rest worthless is
// an error; anything else goes to its problems.
func parse(file string, text []byte) (*document, error) {
	d := &document{
		file: file, dir: filepath.Dir(file),
		places: make(map[string]place), broken: make(map[string]bool), known: make(map[string]bool),
	}
	if len(text) > maxFileBytes {
		return nil, d.alone(place{}, "is larger than %d KiB: that is no pipeline file", maxFileBytes>>10)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var node yaml.Node
	switch err := decode(decoder, &node); {
	case errors.Is(err, io.EOF) || err == nil && len(node.Content) == 0:
		return nil, d.alone(place{1, 1}, "is empty: a pipeline has at least producers and a processor")
	case err != nil:
		return nil, d.syntax(text, err)
	}
	d.root = node.Content[0]
	var second yaml.Node
	switch err := decode(decoder, &second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		return nil, d.syntax(text, err)
	default:
		d.fail(place{second.Line, second.Column}, "", "a second document begins here and would be ignored: list several pipelines under the key pipelines")
	}
	return d, nil
}

// decode reads one document of a file. The YAML library reports errors by
// panics within; one that it did not foresee must not end the program that
// loads a file.
func decode(decoder *yaml.Decoder, node *yaml.Node) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("yaml: the parser cannot read this")
		}
	}()
	return decoder.Decode(node)
}

var (
	syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)
	// The library counts lines from 0 in these messages, from 1 in others.
	parserMessage = regexp.MustCompile(`^did not find expected (node content|key|'-' indicator|',' or|<)`)
	unknownAnchor = regexp.MustCompile(`unknown anchor '.*' referenced`)
)

// syntax is a YAML error in the form of a problem.
func (d *document) syntax(text []byte, err error) error {
	at, message := place{1, 1}, err.Error()
	if m := syntaxLine.FindStringSubmatch(message); m != nil {
		message = m[2]
		if line, err := strconv.Atoi(m[1]); err == nil {
			if parserMessage.MatchString(message) {
				line++
			}
			at.line = min(max(line, 1), bytes.Count(bytes.TrimSpace(text), []byte("\n"))+1)
		}
	}
	switch {
	case strings.Contains(message, "control characters"), strings.Contains(message, "UTF-8"), strings.Contains(message, "UTF-16"):
		message += ": is this a text file?"
	case unknownAnchor.MatchString(message):
		// What follows the star may be a secret that someone forgot to quote.
		message = "a value that begins with * refers to an anchor that is not there: put it in quotes"
	}
	if tabbed(text, at.line) {
		message += ": indent with spaces, not with tabs"
	}
	return d.alone(at, "this is not YAML: %s", message)
}

// tabbed says whether a line, or one beside it, begins with a tab: the parser's
// idea of a line is off by one at times.
func tabbed(text []byte, line int) bool {
	lines := bytes.Split(text, []byte("\n"))
	for i := max(line-2, 0); i < min(line+1, len(lines)); i++ {
		if bytes.HasPrefix(bytes.TrimLeft(lines[i], " "), []byte("\t")) {
			return true
		}
	}
	return false
}

// alone is an Error with one problem.
func (d *document) alone(at place, format string, args ...any) *Error {
	return &Error{Problems: []Problem{{File: d.file, Line: at.line, Column: at.column, Message: fmt.Sprintf(format, args...)}}}
}

// fail records a problem.
func (d *document) fail(at place, path, format string, args ...any) {
	if len(d.problems) >= maxProblems {
		d.more++
		return
	}
	d.problems = append(d.problems, Problem{
		File: d.file, Line: at.line, Column: at.column, Key: path, Message: fmt.Sprintf(format, args...),
	})
}

// warn records what is no mistake but unwise.
func (d *document) warn(at place, path, format string, args ...any) {
	p := Problem{File: d.file, Line: at.line, Column: at.column, Key: path, Message: fmt.Sprintf(format, args...)}
	d.warnings = append(d.warnings, p.String())
}

// mistyped records a value that could not be taken. What is missing because of
// it is no mistake of its own: see isBroken.
func (d *document) mistyped(n *yaml.Node, path, format string, args ...any) {
	d.broken[path] = true
	d.fail(placeOf(n), path, format, args...)
}

// isBroken says whether the value of path, or one around it, could not be taken.
func (d *document) isBroken(path string) bool {
	for path != "" {
		if d.broken[path] {
			return true
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return false
}

// err is all that was recorded, nil when nothing was.
func (d *document) err() error {
	if len(d.problems) == 0 {
		return nil
	}
	return &Error{Problems: sortProblems(d.problems), More: d.more}
}

// at is where path stands in the file; a path that is not there stands where
// the nearest one around it does.
func (d *document) at(path string) place {
	for path != "" {
		if p, ok := d.places[path]; ok {
			return p
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			break
		}
		path = path[:cut]
	}
	return place{max(d.root.Line, 1), max(d.root.Column, 1)}
}

// visit counts a node, and says whether there were too many: aliases make few
// lines into very many nodes.
func (d *document) visit(n *yaml.Node, path string) bool {
	d.nodes++
	if d.nodes == maxNodes {
		d.fail(placeOf(n), path, "the aliases of this file make it larger than %d values", maxNodes)
	}
	return d.nodes < maxNodes
}

func placeOf(n *yaml.Node) place { return place{n.Line, n.Column} }
