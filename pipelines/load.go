package pipelines

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/gobroadway/gobroadway/broadway"
)

// Pipeline is a pipeline of a file, together with what its file made it bring.
type Pipeline struct {
	*broadway.Pipeline
	closers []io.Closer
}

// Run runs the pipeline, see [broadway.Pipeline.Run], and closes the publishers
// that its file describes.
func (p *Pipeline) Run(ctx context.Context) error {
	errs := []error{p.Pipeline.Run(ctx)}
	for _, c := range p.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Load makes the pipelines that a file describes, in their order in the file. It
// checks all of them completely, dials nothing and starts nothing. What is wrong
// with the file is an [*Error] with all mistakes; that the file cannot be read is
// an error too, but another one.
func Load(file string, registry *Registry) ([]*Pipeline, error) {
	text, err := readBounded(file, maxFileBytes)
	if err != nil {
		return nil, fmt.Errorf("pipelines: %w", err)
	}
	return Parse(file, text, registry)
}

// Parse is [Load] for text that is there already. Name stands for the file in
// messages, and relative names in the text start at its folder.
func Parse(name string, text []byte, registry *Registry) ([]*Pipeline, error) {
	d, err := parse(name, text)
	if err != nil {
		return nil, err
	}
	d.logger = registry.log()
	built := registry.build(d)
	if err := d.err(); err != nil {
		return nil, err
	}
	for _, warning := range d.warnings {
		d.logger.Warn(warning)
	}
	return built, nil
}

func (r *Registry) log() *slog.Logger {
	if r.logger == nil {
		return slog.Default()
	}
	return r.logger
}

// build makes the pipelines of d. They are of use only when d has no problems.
func (r *Registry) build(d *document) []*Pipeline {
	for _, mistake := range r.mistakes {
		d.fail(place{}, "", "%s", mistake)
	}
	var list []*Pipeline
	names := make(map[string]bool)
	for _, s := range d.pipelines() {
		p, name := r.pipeline(s, len(list))
		if names[name] {
			d.fail(d.at(join(s.path, "name")), join(s.path, "name"), "there are two pipelines named %q", excerpt(name))
		}
		names[name] = true
		list = append(list, p)
	}
	return list
}

// pipelines are the sections of a file: one for each item of the key pipelines,
// or the file itself.
func (d *document) pipelines() []Section {
	whole := Section{doc: d, node: d.root}
	var keys fileSpec
	for i := 0; i+1 < len(d.root.Content) && isMapping(d.root); i += 2 {
		if d.root.Content[i].Value != "pipelines" {
			continue
		}
		d.decodeInto(&keys, d.root, "", 0)
		if len(keys.Pipelines) == 0 && len(d.problems) == 0 {
			d.fail(d.at("pipelines"), "pipelines", "has no pipelines")
		}
		list := keys.Pipelines[:0]
		for _, s := range keys.Pipelines {
			if s.doc != nil { // otherwise it was no mapping, which was reported
				list = append(list, s)
			}
		}
		return list
	}
	return []Section{whole}
}

// pipeline makes one pipeline and says its name. Number is its place in the
// file.
func (r *Registry) pipeline(s Section, number int) (*Pipeline, string) {
	var spec pipelineSpec
	spec.Name = defaultName(s.doc.file, number)
	b := &builder{registry: r, doc: s.doc, path: s.path}
	if err := s.Decode(&spec); err != nil && !isMapping(s.node) {
		return nil, spec.Name
	}
	cfg := b.config(&spec)
	for _, change := range r.configure {
		change(&cfg)
	}
	p, err := broadway.New(cfg)
	b.locate(err)
	return &Pipeline{Pipeline: p, closers: b.closers}, spec.Name
}

// defaultName is the name of a pipeline that has none: the file's, and the
// number of the pipeline where there are several.
func defaultName(file string, number int) string {
	base := filepath.Base(file)
	name := strings.TrimSuffix(base, filepath.Ext(base))
	if wrongName(name) {
		name = "pipeline"
	}
	if number > 0 {
		name = fmt.Sprintf("%s-%d", name, number+1)
	}
	return name
}
