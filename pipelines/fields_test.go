package pipelines_test

import (
	"context"
	"errors"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/pipelines"
	"github.com/gobroadway/gobroadway/producers/kafka"
	"github.com/gobroadway/gobroadway/producers/memory"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// elsewhere are the fields that no key is named after, and where they are.
var elsewhere = map[string]string{
	"broadway.Config.Logger":               "Registry.Logger",
	"broadway.Config.Observer":             "Registry.Configure",
	"broadway.BatcherConfig.Name":          "the key below batchers",
	"acknowledgers.DeadLetters.Publisher":  "dead_letter: {kind: {…}}",
	"acknowledgers.DeadLetters.Route":      "Registry.DeadLetterer",
	"acknowledgers.DeadLetters.Now":        "Registry.DeadLetterer",
	"kafka.Config.Logger":                  "Registry.Logger",
	"kafka.PublisherConfig.Now":            "Registry.Publisher",
	"kafka.PublisherConfig.Logger":         "Registry.Logger",
	"kafka.SASL.Credentials":               "username, and password or token",
	"rabbitmq.Config.Logger":               "Registry.Logger",
	"rabbitmq.Config.Credentials":          "username and password, or external",
	"rabbitmq.PublisherConfig.Logger":      "Registry.Logger",
	"rabbitmq.PublisherConfig.Credentials": "username and password, or external",
	"memory.Config.QueueConfig":            "its fields",
	"memory.Config.Next":                   "Registry.Source",
	"memory.QueueConfig.Capacity":          "Registry.Queue",
	"memory.QueueConfig.Settled":           "Registry.Queue",
}

// keyOf is what a field is called in a file, where that is not its name in lower case.
var keyOf = map[string]string{
	"acknowledgers.DeadLetters.Destination": "topic", // of the publisher's section
	"acknowledgers.DeadLetters.MaxBytes":    "dead_letter_max_bytes",
	"acknowledgers.DeadLetters.Spill":       "dead_letter_spill",
}

// TestEveryFieldCanBeSetInAFile, or says what sets it: whoever adds a field decides.
func TestEveryFieldCanBeSetInAFile(t *testing.T) {
	used := map[string]bool{}
	for _, part := range []struct {
		files []string
		types []any
	}{
		{[]string{"spec.go", "parts.go", "kafka/kafka.go"}, []any{
			broadway.Config{}, broadway.ProcessorConfig{}, broadway.BatcherConfig{}, broadway.FailurePolicy{},
			broadway.Backoff{}, broadway.MessageLimits{}, acknowledgers.DeadLetters{},
		}},
		{[]string{"kafka/kafka.go"}, []any{kafka.Config{}, kafka.PublisherConfig{}, kafka.SASL{}}},
		{[]string{"rabbitmq/rabbitmq.go"}, []any{
			rabbitmq.Config{}, rabbitmq.PublisherConfig{}, rabbitmq.QueueDeclare{}, rabbitmq.ExchangeDeclare{},
			rabbitmq.Binding{}, rabbitmq.Consumer{},
		}},
		{[]string{"memory.go"}, []any{memory.Config{}, memory.QueueConfig{}}},
	} {
		keys := keysOf(t, part.files...)
		for _, value := range part.types {
			of := reflect.TypeOf(value)
			for i := range of.NumField() {
				f := of.Field(i)
				name := of.String() + "." + f.Name
				if !f.IsExported() {
					continue
				}
				used[name] = true
				if key := keyName(name, f.Name); !keys[key] && elsewhere[name] == "" {
					t.Errorf("%s: no key %q in %v; give it one, or say in this test what sets it", name, key, part.files)
				}
			}
		}
	}
	for name := range elsewhere {
		if !used[name] {
			t.Errorf("%s is no field any more", name)
		}
	}
}

// keysOf are the keys that the specs in files have.
func keysOf(t *testing.T, files ...string) map[string]bool {
	keys := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile("yaml:\"([a-z0-9_]+)\"").FindAllStringSubmatch(string(text), -1) {
			keys[m[1]] = true
		}
	}
	return keys
}

// keyName is the key of a field: LagInterval is lag_interval, VHost vhost.
func keyName(name, field string) string {
	if key := keyOf[name]; key != "" {
		return key
	}
	field = strings.NewReplacer("VHost", "Vhost", "URL", "Url", "TLS", "Tls", "SASL", "Sasl", "ClientID", "ClientId").Replace(field)
	return strings.ToLower(regexp.MustCompile(`([a-z0-9])([A-Z])`).ReplaceAllString(field, "${1}_${2}"))
}

// What a file says of dead letters, and of outages, arrives.
func TestDeadLettersAndOutagesOfAFileArrive(t *testing.T) {
	r := pipelines.NewRegistry()
	r.Processor("render", func(context.Context, *broadway.Message) error { return nil })
	r.Queue("dead", memory.NewQueue(memory.QueueConfig{}))
	r.Spill("shelf", func(context.Context, *broadway.Message) (string, error) { return "there", nil })
	down := errors.New("down")
	r.Unavailable("is_down", func(err error) bool { return errors.Is(err, down) })
	var got broadway.FailurePolicy
	r.Configure(func(cfg *broadway.Config) { got = cfg.Failure })
	file := t.TempDir() + "/orders.yaml"
	load := func(failure string) error {
		text := "name: orders\nproducers: [{memory: {payloads: [a]}}]\nprocessor: {handler: render}\nfailure:\n" + failure
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		_, err := pipelines.Load(file, r)
		return err
	}
	require.NoError(t, load(`  action: dead_letter
  dead_letter: {memory: {queue: dead}}
  dead_letter_max_bytes: 2KiB
  dead_letter_spill: shelf
  unavailable: is_down
`))
	letters, ok := got.DeadLetter.(*acknowledgers.DeadLetters)
	require.True(t, ok)
	require.EqualValues(t, 2048, letters.MaxBytes)
	where, err := letters.Spill(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, "there", where)
	require.True(t, got.Unavailable(down))
	require.False(t, got.Unavailable(errors.ErrUnsupported))

	require.ErrorContains(t, load("  dead_letter_max_bytes: 2KiB\n  unavailable: nobody\n"), "there is no classifier of errors")
	require.ErrorContains(t, load("  dead_letter_spill: shelf\n"), "is about dead letters to a publisher")
}
