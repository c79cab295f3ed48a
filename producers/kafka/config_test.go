package kafka_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

func TestValidateReportsEveryMistakeAtOnce(t *testing.T) {
	p := kafka.NewProducer(kafka.Config{
		Brokers: []string{"a:1", "b", ":9"}, Topics: []string{"ok", "ok", "", "a/b", strings.Repeat("x", 250)},
		StartAt: kafka.At(time.Unix(-5, 0)), OutOfRange: 7, Corrupt: 7, Isolation: 7,
		SessionTimeout: time.Second, HeartbeatInterval: 900 * time.Millisecond, RebalanceTimeout: time.Millisecond,
		MetadataInterval: -1, MaxWait: time.Minute, CommitInterval: -1,
		MinBytes: -1, MaxBytes: 1, MaxPartitionBytes: math.MaxInt, MaxBatchBytes: 1, Window: -1,
		SASL: &kafka.SASL{Mechanism: "MAGIC"},
	})
	err := p.Validate()
	for _, want := range []string{
		`"b"`, `":9"`, `"ok" is listed twice`, `"" is not`, `"a/b"`, "longer than 249", "Group: required", "StartAt",
		"OutOfRange", "Corrupt", "Isolation", "HeartbeatInterval", "RebalanceTimeout", "MetadataInterval", "MaxWait", "CommitInterval",
		"MinBytes", "MaxBytes", "MaxPartitionBytes", "MaxBatchBytes", "Window", `"MAGIC"`, "Credentials",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s", want)
		}
	}
	if t.Failed() {
		t.Log(err)
	}
	if err := kafka.NewProducer(kafka.Config{}).Validate(); err == nil || strings.Count(err.Error(), "required") != 3 {
		t.Errorf("an empty config: %v, want brokers, topics and group", err)
	}
}

func TestDefaultsAreValid(t *testing.T) {
	p := kafka.NewProducer(kafka.Config{Brokers: []string{"127.0.0.1:1"}, Topics: []string{"t"}, Group: "g"})
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
	traits := p.Describe(broadway.Limits{MaxUnsettled: 100})
	if traits.Kind != "kafka" || traits.Name != "t" || !traits.Broker || traits.PartitionBy == nil ||
		!traits.Actions.Has(broadway.ActionStopPartition) || traits.Actions.Has(broadway.ActionReject) {
		t.Errorf("traits %+v", traits)
	}
}

func TestSecretsNeverPrint(t *testing.T) {
	c := kafka.Credentials{Username: "u", Password: "hunter2", Token: "hunter2"}
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "c", c, "p", c.Password)
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %s %q %x %d", c, c, c, c, c.Password, c.Password, c.Password),
		logged.String(), string(encoded), c.Password.String(), c.Password.GoString(),
	} {
		if strings.Contains(s, "hunter2") || strings.Contains(s, "68756e74657232") || !strings.Contains(s, "***") {
			t.Errorf("printed as %s", s)
		}
	}
}
