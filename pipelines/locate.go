package pipelines

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"github.com/gobroadway/gobroadway/broadway"
)

// locate reports the mistakes that broadway.New found, in the terms of the file.
func (b *builder) locate(err error) {
	if err == nil {
		return
	}
	for _, err := range flatten(err) {
		var f *broadway.FieldError
		if !errors.As(err, &f) {
			b.fail("", "%s", b.doc.translate(err.Error()))
			continue
		}
		path := b.translatePath(f.Field)
		if b.doc.isBroken(join(b.path, path)) {
			continue
		}
		reason := f.Reason
		if f.Value != nil {
			reason = fmt.Sprintf("%v: %s", f.Value, reason)
		}
		for line := range strings.Lines(reason) {
			b.locateLine(path, strings.TrimSuffix(line, "\n"))
		}
	}
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var list []error
	for _, err := range joined.Unwrap() {
		list = append(list, flatten(err)...)
	}
	return list
}

// ownField is what a part says of a field of its own: "kafka: SASL: Mechanism:
// why". The first word is the package, those with a capital are fields.
var ownField = regexp.MustCompile(`^[a-z]+: ((?:[A-Z][A-Za-z0-9]*(?:\[[0-9]+\])?(?:\.|: ))+)(.*)$`)

// locateLine reports one reason at path, or at the field below path that the
// reason begins with.
func (b *builder) locateLine(path, reason string) {
	if m := ownField.FindStringSubmatch(reason); m != nil {
		for _, field := range strings.FieldsFunc(m[1], func(r rune) bool { return r == '.' || r == ':' || r == ' ' }) {
			path = join(path, b.doc.key(field))
		}
		reason = m[2]
	}
	b.fail(path, "%s", b.doc.translate(reason))
}

var indexed = regexp.MustCompile(`^(Producers|Batchers)\[([0-9]+)\]$`)

// translatePath is the path of a file for a field of a Config:
// "Batchers[0].Size" is "batchers.default.size".
func (b *builder) translatePath(field string) string {
	path := ""
	for part := range strings.SplitSeq(field, ".") {
		m := indexed.FindStringSubmatch(part)
		if m == nil || path != "" {
			path = join(path, b.doc.key(part))
			continue
		}
		paths := b.producers
		if m[1] == "Batchers" {
			paths = b.batchers
		}
		if i, err := strconv.Atoi(m[2]); err == nil && i < len(paths) {
			path = paths[i]
		} else {
			path = snake(part)
		}
	}
	return path
}

// key is the key of a Go name. Where files write an abbreviation as one word
// ("vhost" for VHost), it is that.
func (d *document) key(name string) string {
	key := snake(name)
	if short := strings.ReplaceAll(key, "_", ""); !d.known[key] && d.known[short] {
		return short
	}
	return key
}

// snake is the key of a Go name: "MaxDemand" is "max_demand", "ClientID" is
// "client_id".
func snake(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		upper := unicode.IsUpper(r)
		if upper && i > 0 && (!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

var goName = regexp.MustCompile(`\b[A-Z][A-Za-z0-9]*\b`)

// translate replaces Go names in a message by the keys that files have for them.
func (d *document) translate(message string) string {
	return goName.ReplaceAllStringFunc(message, func(name string) string {
		if key := d.key(name); d.known[key] {
			return key
		}
		return name
	})
}

// learn remembers keys, for translate.
func (d *document) learn(fields map[string]field) {
	for key := range fields {
		d.known[key] = true
	}
}
