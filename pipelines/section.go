package pipelines

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"strconv"

	"gopkg.in/yaml.v3"
)

// Section is one mapping of a file: what a source or a publisher of a
// registered kind is given. It knows where it stands, so that mistakes are
// reported with file and line.
type Section struct {
	doc   *document
	node  *yaml.Node // nil when the file says nothing: "- memory:"
	path  string
	depth int
}

// ErrReported is what the methods of a Section return when the mistakes are in
// the file's list already. A decoder that gets it may return it at once; it adds
// nothing to the list.
var ErrReported = errors.New("pipelines: mistakes were reported")

// Path is where the section stands: "producers[0].kafka".
func (s *Section) Path() string { return s.path }

// File is name as seen from the file's own folder; an absolute name stays.
func (s *Section) File(name string) string { return s.doc.resolve(name) }

// Fail reports a mistake at key, which is a path within the section ("topics",
// "tls.ca_file"), or at the section itself when key is "". It returns
// ErrReported. The message must not have secret values.
func (s *Section) Fail(key, format string, args ...any) error {
	path := join(s.path, key)
	s.doc.fail(s.doc.at(path), path, format, args...)
	return ErrReported
}

// Warn tells the registry's logger of what is no mistake but unwise, once the
// file was found to have no mistakes.
func (s *Section) Warn(key, format string, args ...any) {
	path := join(s.path, key)
	s.doc.warn(s.doc.at(path), path, format, args...)
}

// Logger is the registry's.
func (s *Section) Logger() *slog.Logger { return s.doc.logger }

// Decode fills the struct that into points to. Keys are those of the fields'
// yaml tags (`yaml:"max_bytes"`); fields without a tag are left alone, and
// `yaml:",inline"` takes in the keys of a struct field. Everything else is
// strict: keys that no field has, keys that stand twice and values of another
// type are mistakes. All are reported at once, with file and line, and Decode
// then returns ErrReported.
//
// Fields may be strings, booleans, integers, floats, [time.Duration] ("1m30s"),
// [Size] ("64MiB"), [Secret], anything with UnmarshalText, any, and structs,
// pointers, slices and maps with string keys of those. A number of zero or
// below is a mistake, because zero would silently become the default, except in
// fields tagged `allow:"zero"` or `allow:"negative"`; a number above that of the
// tag `max:"65535"` is one too. A key that is not there leaves its field as it
// is.
func (s *Section) Decode(into any) error {
	before := len(s.doc.problems) + s.doc.more
	s.doc.decodeInto(into, s.node, s.path, s.depth)
	if len(s.doc.problems)+s.doc.more > before {
		return ErrReported
	}
	return nil
}

// resolve is name as seen from the folder of the document.
func (d *document) resolve(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(d.dir, name)
}

// entry is one key of a mapping with its value.
type entry struct {
	name  string
	key   *yaml.Node
	value *yaml.Node
}

// entries are the keys of a mapping in their order. Keys that stand twice, and
// keys that are not text, are reported and left out. Merged keys (<<: *anchor)
// come last, and only those that the mapping itself does not have.
func (d *document) entries(n *yaml.Node, path string, depth int) []entry {
	var list []entry
	var merges []*yaml.Node
	first := make(map[string]*yaml.Node)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !d.visit(key, path) {
			return nil
		}
		if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
			merges = append(merges, value)
			continue
		}
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" {
			d.fail(placeOf(key), path, "a key must be text; put it in quotes if it looks like something else")
			continue
		}
		if before, ok := first[key.Value]; ok {
			d.fail(placeOf(key), join(path, element(key.Value)), "stands twice, first in line %d", before.Line)
			continue
		}
		first[key.Value] = key
		list = append(list, entry{key.Value, key, value})
	}
	for _, merge := range merges {
		for _, e := range d.merged(merge, path, depth) {
			if _, ok := first[e.name]; !ok {
				first[e.name] = e.key
				list = append(list, e)
			}
		}
	}
	return list
}

// merged are the keys that a merge brings: those of a mapping, or of several.
func (d *document) merged(n *yaml.Node, path string, depth int) []entry {
	n, ok := d.follow(n, path, depth)
	if !ok {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		return d.entries(n, path, depth+1)
	case yaml.SequenceNode:
		var list []entry
		for _, item := range n.Content {
			list = append(list, d.merged(item, path, depth+1)...)
		}
		return list
	}
	d.fail(placeOf(n), path, "<< takes a mapping, or a list of mappings")
	return nil
}

// follow is what an alias stands for, or n itself. False says that the file
// nests or repeats too much, which then is reported.
func (d *document) follow(n *yaml.Node, path string, depth int) (*yaml.Node, bool) {
	if !d.visit(n, path) {
		return nil, false
	}
	if depth > maxDepth {
		if !d.tooDeep {
			d.tooDeep = true
			d.fail(placeOf(n), "", "the file nests deeper than %d levels", maxDepth)
		}
		return nil, false
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n, true
}

// oneOf is a mapping with one key, which is the kind of what it describes:
// "kafka: {...}".
type oneOf struct {
	kind    string
	section *Section
}

// nameOrKind is the name of something that is registered, or a oneOf.
type nameOrKind struct {
	name string
	oneOf
}

func (d *document) decodeOneOf(n *yaml.Node, path string, depth int) oneOf {
	if n.Kind != yaml.MappingNode {
		d.mistyped(n, path, "want a mapping with one key, the kind; got %s", describe(n))
		return oneOf{}
	}
	list := d.entries(n, path, depth)
	if len(list) != 1 {
		if len(n.Content) != 2 { // otherwise its one key was reported
			d.fail(placeOf(n), path, "want one key, the kind; got %d", len(list))
		}
		return oneOf{}
	}
	e := list[0]
	s := &Section{doc: d, path: join(path, element(e.name)), depth: depth + 1}
	d.places[s.path] = placeOf(e.key)
	value, ok := d.follow(e.value, s.path, depth+1)
	switch {
	case !ok:
		return oneOf{}
	case isNull(value):
	case value.Kind == yaml.MappingNode:
		s.node = value
	default:
		d.mistyped(value, s.path, "want a mapping, got %s", describe(value))
		return oneOf{}
	}
	return oneOf{e.name, s}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

var plainElement = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// element is name as one element of a path.
func element(name string) string {
	if plainElement.MatchString(name) && len(name) <= maxExcerpt {
		return name
	}
	return strconv.Quote(excerpt(name))
}

// join puts element to the end of path.
func join(path, element string) string {
	if path == "" || element == "" {
		return path + element
	}
	return path + "." + element
}

func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
