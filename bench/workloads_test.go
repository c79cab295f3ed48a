package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// modules are where peers come from, by how their systems' names begin.
var modules = map[string]string{
	"franz-go":    "github.com/twmb/franz-go",
	"kafka-go":    "github.com/segmentio/kafka-go",
	"sarama":      "github.com/IBM/sarama",
	"amqp091-go":  "github.com/rabbitmq/amqp091-go",
	"benthos":     "github.com/redpanda-data/benthos/v4",
	"watermill":   "github.com/ThreeDotsLabs/watermill",
	" kafka":      "github.com/ThreeDotsLabs/watermill-kafka/v3",
	" amqp":       "github.com/ThreeDotsLabs/watermill-amqp/v3",
	"Parallel":    "", // in Java
	"broadway":    "",
	"stages":      "",
	"channels":    "",
	"one channel": "",
}

// module is the one of a name, and whether it is known.
func module(name string) (string, bool) {
	for begin, path := range modules {
		if strings.HasPrefix(name, begin) {
			return path, true
		}
	}
	return "", false
}

func TestVersionsAreThoseOfTheModule(t *testing.T) {
	data, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	require := string(data)
	for _, w := range workloads() {
		for _, s := range w.Systems {
			path, known := module(s.Name)
			if path == "" {
				if !known && s.Version != "" {
					t.Errorf("%s: %s: where does it come from?", w.Name, s.Name)
				}
				continue
			}
			first, rest, _ := strings.Cut(s.Version, ",")
			if !strings.Contains(require, path+" v"+first+"\n") {
				t.Errorf("%s: %s is not %s v%s", w.Name, s.Name, path, first)
			}
			if at := strings.LastIndex(rest, " "); at >= 0 {
				path, _ := module(rest[:at])
				if path == "" || !strings.Contains(require, path+" v"+rest[at+1:]+"\n") {
					t.Errorf("%s: %s: %s is not in go.mod", w.Name, s.Name, rest)
				}
			}
		}
	}
}

func TestTargetsNameSystemsOfTheirWorkload(t *testing.T) {
	names := map[string]bool{}
	for _, w := range workloads() {
		if names[w.Name] {
			t.Errorf("two workloads are called %s", w.Name)
		}
		names[w.Name] = true
		var systems []string
		for _, s := range w.Systems {
			systems = append(systems, s.Name)
		}
		slices.Sort(systems)
		if len(slices.Compact(slices.Clone(systems))) != len(systems) {
			t.Errorf("%s: two systems have one name: %v", w.Name, systems)
		}
		for _, target := range w.Targets {
			checkTarget(t, w, target, systems)
		}
	}
}

func checkTarget(t *testing.T, w measure.Workload, target measure.Target, systems []string) {
	t.Helper()
	for _, name := range []string{target.System, target.Peer} {
		if name != "" && !slices.Contains(systems, name) {
			t.Errorf("%s: a target speaks of %q, which is no system of it", w.Name, name)
		}
	}
	if target.AtLeast == 0 && target.AtMost == 0 {
		t.Errorf("%s: a target for %s asks for nothing", w.Name, target.System)
	}
}
