package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gobroadway/gobroadway"

// mayImport says which of our packages each of our packages may import, outside tests. Everything points at the vocabulary in
// broadway; the one sideways edge is producers -> acknowledgers. A package that is not here fails the test: to add one is a
// decision, made when it brings a dependency or has a different importer.
func mayImport() map[string][]string {
	return map[string][]string{
		"broadway":              {"broadway/stage"},
		"broadway/stage":        {},
		"broadway/broadwaytest": {"broadway"},
		"acknowledgers":         {"broadway"},
		"batchers":              {"broadway"},
		"metrics":               {"broadway"},
		"producers/kafka":       {"broadway", "acknowledgers"},
		"producers/rabbitmq":    {"broadway", "acknowledgers"},
		"producers/memory":      {"broadway", "acknowledgers"},
		"pipelines":             {"broadway", "acknowledgers", "batchers", "producers/memory"},
		"pipelines/kafka":       {"broadway", "acknowledgers", "pipelines", "producers/kafka"},
		"pipelines/rabbitmq":    {"broadway", "acknowledgers", "pipelines", "producers/rabbitmq"},
		"brokers":               {},
		"internal/archtest":     {},
		"internal/micro":        {},
		"internal/tlstest":      {},
	}
}

// programs may import anything of ours, and nobody imports them.
func programs() []string { return []string{"examples/", "cmd/"} }

// mustLink pins the modules of others that each public package brings into a program that uses it. Nobody pays for what they do
// not use, and a new entry is a decision.
func mustLink() map[string][]string {
	kafka := []string{
		"github.com/klauspost/compress", "github.com/pierrec/lz4/v4", "github.com/segmentio/kafka-go", "github.com/twmb/franz-go/pkg/kmsg",
	}
	rabbitmq := []string{"github.com/rabbitmq/amqp091-go"}
	yaml := []string{"gopkg.in/yaml.v3"}
	return map[string][]string{
		"broadway":              {},
		"broadway/stage":        {},
		"broadway/broadwaytest": {},
		"acknowledgers":         {},
		"batchers":              {},
		"producers/memory":      {},
		"producers/kafka":       kafka,
		"producers/rabbitmq":    rabbitmq,
		"pipelines":             yaml,
		"pipelines/kafka":       slices.Concat(kafka, yaml),
		"pipelines/rabbitmq":    slices.Concat(rabbitmq, yaml),
		"metrics": {
			"github.com/beorn7/perks", "github.com/cespare/xxhash/v2", "github.com/munnerz/goautoneg", "github.com/prometheus/client_golang",
			"github.com/prometheus/client_model", "github.com/prometheus/common", "github.com/prometheus/procfs", "golang.org/x/sys",
			"google.golang.org/protobuf",
		},
		"brokers": {
			"github.com/klauspost/compress", "github.com/pierrec/lz4/v4", "github.com/rabbitmq/amqp091-go", "github.com/twmb/franz-go",
			"github.com/twmb/franz-go/pkg/kfake", "github.com/twmb/franz-go/pkg/kmsg",
		},
	}
}

// listed is what go list tells of a package.
type listed struct {
	ImportPath string
	Standard   bool
	Module     *struct{ Path string }
	GoFiles    []string
	Imports    []string
	Deps       []string
}

// list runs go list. The system is fixed, so that the answers do not depend on where the test runs.
func list(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Standard,Module,GoFiles,Imports,Deps"}, args...)...)
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var packages []listed
	for decoder := json.NewDecoder(bytes.NewReader(output)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// ours returns a package's path within the module.
func ours(importPath string) (string, bool) {
	return strings.CutPrefix(importPath, module+"/")
}

func isProgram(path string) bool {
	return slices.ContainsFunc(programs(), func(prefix string) bool { return strings.HasPrefix(path, prefix) })
}

func TestImportsPointAtTheVocabulary(t *testing.T) {
	rules := mayImport()
	for _, p := range list(t, "./...") {
		path, _ := ours(p.ImportPath)
		if isProgram(path) {
			continue
		}
		allowed, known := rules[path]
		if !known {
			t.Errorf("%s has no rule: a new package is a decision, make it in internal/archtest/imports_test.go", path)
		}
		for _, imported := range p.Imports {
			target, own := ours(imported)
			if own && known && !slices.Contains(allowed, target) {
				t.Errorf("%s imports %s: %s", path, target, where(t, p, imported))
			}
		}
	}
}

func TestEachPackageLinksNoMoreThanItNeeds(t *testing.T) {
	pins := mustLink()
	for _, p := range list(t, "./...") {
		path, _ := ours(p.ImportPath)
		if isProgram(path) || strings.HasPrefix(path, "internal/") {
			continue
		}
		pinned, known := pins[path]
		if !known {
			t.Errorf("%s is not in the table of what packages link", path)
			continue
		}
		checkLinks(t, path, pinned)
	}
}

// checkLinks compares what a package links with what it may link.
func checkLinks(t *testing.T, path string, pinned []string) {
	t.Helper()
	linked := make(map[string]string) // module: one of its packages
	for _, dependency := range list(t, "-deps", "./"+path) {
		if dependency.Module != nil && dependency.Module.Path != module {
			linked[dependency.Module.Path] = dependency.ImportPath
		}
	}
	for found, example := range linked {
		if !slices.Contains(pinned, found) {
			t.Errorf("%s links %s (%s), which is not in its table", path, found, example)
		}
	}
	for _, want := range pinned {
		if linked[want] == "" {
			t.Errorf("%s no longer links %s: take it out of its table", path, want)
		}
	}
}

func TestTheCoreNeedsTheStandardLibraryOnly(t *testing.T) {
	for _, p := range list(t, "-deps", "./broadway", "./acknowledgers", "./batchers", "./producers/memory") {
		if _, own := ours(p.ImportPath); !own && !p.Standard {
			t.Errorf("the core links %s", p.ImportPath)
		}
	}
}

// The stages know no messages: they are useful alone.
func TestStagesImportTheStandardLibraryOnly(t *testing.T) {
	for _, p := range list(t, "-deps", "./broadway/stage") {
		if !p.Standard && p.ImportPath != module+"/broadway/stage" {
			t.Errorf("broadway/stage imports %s", p.ImportPath)
		}
	}
}
