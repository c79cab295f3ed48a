package report

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

//go:embed performance.md.tmpl
var page string

// section is one workload on the page.
type section struct {
	measure.Workload
	Rows     []Row
	Verdicts []Verdict
}

// Write writes performance.json, performance.md and a picture of each workload into dir.
func Write(dir string, workloads []measure.Workload, rounds []measure.Round) error {
	var all []Row
	var sections []section
	for _, w := range workloads {
		s := section{Workload: w, Rows: rows(w, rounds)}
		if len(s.Rows) == 0 {
			continue
		}
		s.Verdicts = verdicts(w, s.Rows)
		sections, all = append(sections, s), append(all, s.Rows...)
		if err := os.WriteFile(filepath.Join(dir, "performance-"+w.Name+".svg"), picture(s), 0o644); err != nil {
			return err
		}
	}
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "performance.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	t, err := template.New("page").Funcs(template.FuncMap{"columns": columns, "elixir": elixir, "line": line, "rule": rule}).Parse(page)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := t.Execute(&text, sections); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "performance.md"), text.Bytes(), 0o644)
}

// line is one of a Markdown table, and rule the one below its heads.
func line(cells []string) string { return "| " + strings.Join(cells, " | ") + " |" }

func rule(heads []string) string { return strings.Repeat("|---", len(heads)) + "|" }
