package pipelines

import (
	"encoding"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// decodeInto fills the struct that into points to from the mapping n; nil is an
// empty one. The YAML library's own decoder would forget, below the first
// custom type, that unknown keys are mistakes, and names Go types in its errors.
func (d *document) decodeInto(into any, n *yaml.Node, path string, depth int) {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		d.fail(d.at(path), path, "cannot be decoded into %T: want a pointer to a struct", into)
		return
	}
	if n == nil {
		d.learn(fieldsOf(v.Elem()))
		return
	}
	d.structure(v.Elem(), n, path, depth)
}

// value fills v from n, whatever both are.
func (d *document) value(v reflect.Value, n *yaml.Node, path string, limit limits, depth int) {
	n, ok := d.follow(n, path, depth)
	if !ok {
		return
	}
	if v.Kind() == reflect.Pointer {
		fresh := reflect.New(v.Type().Elem())
		d.value(fresh.Elem(), n, path, limit, depth+1)
		v.Set(fresh)
		return
	}
	if _, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		d.scalar(v, n, path, limit)
		return
	}
	switch target := v.Addr().Interface().(type) {
	case *oneOf:
		*target = d.decodeOneOf(n, path, depth)
		return
	case *Section:
		d.section(target, n, path, depth)
		return
	case *nameOrKind:
		if n.Kind == yaml.ScalarNode {
			d.scalar(reflect.ValueOf(&target.name).Elem(), n, path, limit)
		} else {
			target.oneOf = d.decodeOneOf(n, path, depth)
		}
		return
	case *any:
		*target = d.untyped(n, path, depth)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(v, n, path, depth)
	case reflect.Slice:
		d.list(v, n, path, limit, depth)
	case reflect.Map:
		d.mapping(v, n, path, limit, depth)
	default:
		d.scalar(v, n, path, limit)
	}
}

// section keeps a mapping for later.
func (d *document) section(s *Section, n *yaml.Node, path string, depth int) {
	if n.Kind != yaml.MappingNode {
		d.mistyped(n, path, "want a mapping, got %s", describe(n))
		return
	}
	*s = Section{doc: d, node: n, path: path, depth: depth}
}

// structure fills the fields of v. An empty value ("failure:" with everything
// below it commented out) is a mapping without keys.
func (d *document) structure(v reflect.Value, n *yaml.Node, path string, depth int) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.mistyped(n, path, "want a mapping, got %s", describe(n))
		return
	}
	fields := fieldsOf(v)
	d.learn(fields)
	for _, e := range d.entries(n, path, depth) {
		at := join(path, element(e.name))
		d.places[at] = placeOf(e.key)
		f, ok := fields[e.name]
		switch {
		case !ok:
			d.fail(placeOf(e.key), at, "is not a key here; %s", names(fields))
		case f.secret != secretNone:
			d.secret(f, e, at, depth)
		default:
			d.value(f.value, e.value, at, f.limit, depth+1)
		}
	}
}

func (d *document) list(v reflect.Value, n *yaml.Node, path string, limit limits, depth int) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.mistyped(n, path, "want a list, got %s", describe(n))
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		at := index(path, i)
		d.places[at] = placeOf(item)
		d.value(out.Index(i), item, at, limit, depth+1)
	}
	v.Set(out)
}

func (d *document) mapping(v reflect.Value, n *yaml.Node, path string, limit limits, depth int) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode || v.Type().Key().Kind() != reflect.String {
		d.mistyped(n, path, "want a mapping, got %s", describe(n))
		return
	}
	out := reflect.MakeMap(v.Type())
	for _, e := range d.entries(n, path, depth) {
		at := join(path, element(e.name))
		d.places[at] = placeOf(e.key)
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(item, e.value, at, limit, depth+1)
		out.SetMapIndex(reflect.ValueOf(e.name).Convert(v.Type().Key()), item)
	}
	v.Set(out)
}

// field is where the value of a key goes.
type field struct {
	value  reflect.Value
	limit  limits
	secret secretKey
}

// fieldsOf are the fields of struct v by their keys. A Secret called "password"
// has the keys password_file and password_env, and password itself, which is
// refused.
func fieldsOf(v reflect.Value) map[string]field {
	fields := make(map[string]field)
	for i := range v.NumField() {
		t := v.Type().Field(i)
		tag, ok := t.Tag.Lookup("yaml")
		if !ok || !t.IsExported() && !t.Anonymous {
			continue
		}
		name, option, _ := strings.Cut(tag, ",")
		switch {
		case option == "inline":
			for key, f := range fieldsOf(v.Field(i)) {
				fields[key] = f
			}
		case t.Type == reflect.TypeFor[Secret]():
			fields[name] = field{value: v.Field(i), secret: secretPlain}
			fields[name+"_file"] = field{value: v.Field(i), secret: secretFile}
			fields[name+"_env"] = field{value: v.Field(i), secret: secretEnv}
		default:
			fields[name] = field{value: v.Field(i), limit: limitsOf(t.Tag)}
		}
	}
	return fields
}

// names lists the keys of fields, without those that are refused anyway.
func names(fields map[string]field) string {
	var list []string
	for name, f := range fields {
		if f.secret != secretPlain {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	if len(list) == 1 {
		return "the only one is " + list[0]
	}
	return "the keys are " + strings.Join(list, ", ")
}
