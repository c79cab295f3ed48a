package pipelines

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Size is a number of bytes. In a file it is a whole number with or without a
// unit: 65536, 64KiB, 1MB. The units are B, kB, MB, GB (powers of 1000) and
// KiB, MiB, GiB (of 1024).
type Size int64

// sizePattern takes a number apart from its unit.
var sizePattern = regexp.MustCompile(`^([0-9]+) ?([A-Za-z]*)$`)

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	m := sizePattern.FindSubmatch(text)
	if m == nil {
		return fmt.Errorf("want a size such as 64MiB, got %q", excerpt(string(text)))
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		return errors.New("the size is too large")
	}
	units := map[string]int64{
		"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
	}
	unit, ok := units[string(m[2])]
	switch {
	case !ok:
		return fmt.Errorf("the unit of a size is one of B, kB, MB, GB, KiB, MiB, GiB; got %q", excerpt(string(m[2])))
	case n > math.MaxInt64/unit:
		return errors.New("the size is too large")
	case n == 0:
		return errors.New("the size must be at least 1")
	}
	*s = Size(n * unit)
	return nil
}

// Interval is a duration that may be "never", which it has as -1, as the Configs
// of this module do.
type Interval time.Duration

// UnmarshalText reads a duration, or "never".
func (i *Interval) UnmarshalText(text []byte) error {
	if string(text) == "never" {
		*i = -1
		return nil
	}
	d, err := parseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%w, or never", err)
	}
	if d <= 0 {
		return errors.New("must be longer than 0, or never")
	}
	*i = Interval(d)
	return nil
}

var bareNumber = regexp.MustCompile(`^[-+]?[0-9.]+$`)

// parseDuration reads what time.ParseDuration does, but for "0".
func parseDuration(text string) (time.Duration, error) {
	if bareNumber.MatchString(text) {
		return 0, fmt.Errorf("a duration needs a unit: write %[1]ss, or %[1]sms", text)
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("want a duration such as 1m30s, got %q", excerpt(text))
	}
	return d, nil
}

// limits are which numbers a field takes: those above 0, unless it says
// otherwise.
type limits struct {
	zero, negative bool
	max            float64 // 0 means none
}

// limitsOf reads the tags of a field.
func limitsOf(tag reflect.StructTag) limits {
	l := limits{zero: tag.Get("allow") != "", negative: tag.Get("allow") == "negative"}
	if most, err := strconv.ParseFloat(tag.Get("max"), 64); err == nil {
		l.max = most
	}
	return l
}

// refuse says why n is not taken, nil when it is.
func (l limits) refuse(n float64) error {
	switch {
	case n < 0 && !l.negative:
		return errors.New("must not be negative")
	case n == 0 && !l.zero:
		return errors.New("must be greater than 0; leave the key out for the default")
	case l.max != 0 && n > l.max:
		return fmt.Errorf("must be at most %.0f", l.max)
	}
	return nil
}

// scalar fills v, whose kind is one of a scalar, from n.
func (d *document) scalar(v reflect.Value, n *yaml.Node, path string, limit limits) {
	if n.Kind != yaml.ScalarNode {
		d.mistyped(n, path, "want %s, got %s", wanted(v.Type()), describe(n))
		return
	}
	if isNull(n) {
		d.mistyped(n, path, "has no value")
		return
	}
	if err := setScalar(v, n, limit); err != nil {
		d.mistyped(n, path, "%s", err)
	}
}

func setScalar(v reflect.Value, n *yaml.Node, limit limits) error {
	if text, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return text.UnmarshalText([]byte(n.Value))
	}
	if v.Type() == reflect.TypeFor[time.Duration]() {
		return setDuration(v, n.Value, limit)
	}
	switch v.Kind() {
	case reflect.String:
		return setString(v, n)
	case reflect.Bool:
		return setBool(v, n)
	case reflect.Float32, reflect.Float64:
		return setFloat(v, n, limit)
	}
	return setInteger(v, n, limit)
}

func setDuration(v reflect.Value, text string, limit limits) error {
	d, err := parseDuration(text)
	if err != nil {
		return err
	}
	if err := limit.refuse(float64(d)); err != nil {
		return err
	}
	v.SetInt(int64(d))
	return nil
}

func setString(v reflect.Value, n *yaml.Node) error {
	switch n.ShortTag() {
	case "!!str", "!!timestamp":
		v.SetString(n.Value)
		return nil
	case "!!int", "!!float", "!!bool":
		return fmt.Errorf("want text, got %s: put it in quotes", describe(n))
	}
	return fmt.Errorf("want text, got %s", describe(n))
}

func setBool(v reflect.Value, n *yaml.Node) error {
	b, err := strconv.ParseBool(n.Value)
	if n.ShortTag() != "!!bool" || err != nil {
		return fmt.Errorf("want true or false, got %s", describe(n))
	}
	v.SetBool(b)
	return nil
}

func setFloat(v reflect.Value, n *yaml.Node, limit limits) error {
	if tag := n.ShortTag(); tag != "!!float" && tag != "!!int" {
		return fmt.Errorf("want a number, got %s", describe(n))
	}
	f, err := strconv.ParseFloat(n.Value, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Errorf("want a finite number in decimal, got %s", excerpt(n.Value))
	}
	if err := limit.refuse(f); err != nil {
		return err
	}
	v.SetFloat(f)
	return nil
}

// decimal is a whole number as people write it. 010 is eight to some and ten to
// others, so it is neither here.
var decimal = regexp.MustCompile(`^[-+]?(0|[1-9][0-9_]*)$`)

func setInteger(v reflect.Value, n *yaml.Node, limit limits) error {
	switch tag := n.ShortTag(); {
	case decimal.MatchString(n.Value) && (tag == "!!int" || tag == "!!float"):
	case tag == "!!int":
		return fmt.Errorf("write the number in decimal, without leading zeros; got %q", excerpt(n.Value))
	default:
		return fmt.Errorf("want a whole number, got %s", describe(n))
	}
	i, err := strconv.ParseInt(strings.ReplaceAll(n.Value, "_", ""), 10, 64)
	unsigned := v.CanUint()
	if err != nil || unsigned && i >= 0 && v.OverflowUint(uint64(i)) || !unsigned && v.OverflowInt(i) {
		return fmt.Errorf("the number %s is out of range", excerpt(n.Value))
	}
	limit.negative = limit.negative && !unsigned
	if err := limit.refuse(float64(i)); err != nil {
		return err
	}
	if unsigned {
		v.SetUint(uint64(i))
	} else {
		v.SetInt(i)
	}
	return nil
}

// untyped is the value of n for a field of type any: string, bool, int64,
// float64, []any or map[string]any.
func (d *document) untyped(n *yaml.Node, path string, depth int) any {
	n, ok := d.follow(n, path, depth)
	if !ok {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any)
		for _, e := range d.entries(n, path, depth) {
			m[e.name] = d.untyped(e.value, join(path, element(e.name)), depth+1)
		}
		return m
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for i, item := range n.Content {
			list = append(list, d.untyped(item, index(path, i), depth+1))
		}
		return list
	}
	types := map[string]reflect.Type{
		"!!int": reflect.TypeFor[int64](), "!!float": reflect.TypeFor[float64](), "!!bool": reflect.TypeFor[bool](),
	}
	t, ok := types[n.ShortTag()]
	if !ok {
		t = reflect.TypeFor[string]()
	}
	v := reflect.New(t).Elem()
	d.scalar(v, n, path, limits{zero: true, negative: true})
	return v.Interface()
}

// wanted says in words what a type takes.
func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]() || t == reflect.TypeFor[Interval]():
		return "a duration such as 1m30s"
	case t == reflect.TypeFor[Size]():
		return "a size such as 64MiB"
	case t.Kind() == reflect.String, reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return "text"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Float32, t.Kind() == reflect.Float64:
		return "a number"
	}
	return "a whole number"
}

// describe says in words what n is.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "the number " + excerpt(n.Value)
	case "!!bool":
		return excerpt(n.Value)
	case "!!str", "!!timestamp":
		return fmt.Sprintf("%q", excerpt(n.Value))
	}
	return "a value with a tag of its own"
}

// maxExcerpt is how much of a value or a name a message shows.
const maxExcerpt = 40

// excerpt is at most maxExcerpt bytes of text, in whole characters.
func excerpt(text string) string {
	if len(text) <= maxExcerpt {
		return text
	}
	text = text[:maxExcerpt]
	for !utf8.ValidString(text) && text != "" {
		text = text[:len(text)-1]
	}
	return text + "…"
}
