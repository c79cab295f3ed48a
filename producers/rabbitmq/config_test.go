package rabbitmq_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// fields lists the fields that err, of a Validate, names.
func fields(err error) []string {
	var names []string
	var walk func(error)
	walk = func(err error) {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				walk(e)
			}
			return
		}
		var mistake *rabbitmq.FieldError
		if errors.As(err, &mistake) {
			names = append(names, mistake.Field)
		} else if err != nil {
			names = append(names, "?"+err.Error())
		}
	}
	walk(err)
	return names
}

// what a config may be, and which field a
// mistake is in.
func TestConfigMistakes(t *testing.T) {
	long := strings.Repeat("x", 256)
	tests := []struct {
		name string
		cfg  rabbitmq.Config
		want []string
	}{
		{"the least", rabbitmq.Config{Queue: "orders"}, nil},
		{"everything", rabbitmq.Config{
			URL: "amqps://me:p%40ss@[::1]:5999/a%2Fb", Queue: "orders", TLS: &tls.Config{MinVersion: tls.VersionTLS13},
			Declare:   &rabbitmq.QueueDeclare{Durable: true, Type: rabbitmq.Quorum, DeadLetterRoutingKey: "dead", Arguments: rabbitmq.Table{"x-delivery-limit": 20}},
			Exchanges: []rabbitmq.ExchangeDeclare{{Name: "e", Kind: "topic"}, {Name: "f", Passive: true}},
			Bindings:  []rabbitmq.Binding{{Exchange: "e", RoutingKey: "#"}, {Exchange: "f", Queue: "orders"}},
			Prefetch:  65535, AckTimeout: -1, LagInterval: -1, Heartbeat: time.Second,
			Backoff: broadway.Backoff{Initial: time.Second, Max: time.Second, Factor: 1, Jitter: -1},
		}, nil},
		{"no queue", rabbitmq.Config{}, []string{"Queue"}},
		{"a queue that the broker names", rabbitmq.Config{Declare: &rabbitmq.QueueDeclare{Exclusive: true}}, nil},
		{"a quorum queue that the broker names", rabbitmq.Config{Declare: &rabbitmq.QueueDeclare{Durable: true, Type: rabbitmq.Quorum}}, []string{"Declare.Type"}},
		{"long names", rabbitmq.Config{
			Queue: long, VHost: long, Consumer: rabbitmq.Consumer{Tag: long},
			Exchanges: []rabbitmq.ExchangeDeclare{{Name: long, Kind: long}},
			Bindings:  []rabbitmq.Binding{{Exchange: long, RoutingKey: long}},
		}, []string{"VHost", "Queue", "Exchanges[0].Name", "Exchanges[0].Kind", "Bindings[0].Exchange", "Bindings[0].RoutingKey", "Consumer.Tag"}},
		{"numbers", rabbitmq.Config{
			Queue: "q", Port: 65536, Prefetch: -1, AckTimeout: -2, LagInterval: -time.Second,
			DialTimeout: -1, CloseTimeout: -1, Heartbeat: time.Millisecond,
		}, []string{"Port", "DialTimeout", "CloseTimeout", "Heartbeat", "Prefetch", "AckTimeout", "LagInterval"}},
		{"prefetch beyond the protocol", rabbitmq.Config{Queue: "q", Prefetch: 65536}, []string{"Prefetch"}},
		{"backoff", rabbitmq.Config{Queue: "q", Backoff: broadway.Backoff{Initial: time.Hour, Max: time.Second, Factor: 0.5, Jitter: 2}},
			[]string{"Backoff.Initial", "Backoff.Factor", "Backoff.Jitter"}},
		{"backoff that is no number", rabbitmq.Config{Queue: "q", Backoff: broadway.Backoff{Initial: -1, Max: -1, Factor: math.NaN(), Jitter: math.NaN()}},
			[]string{"Backoff.Initial", "Backoff.Max", "Backoff.Factor", "Backoff.Jitter"}},
		{"URL and parts of it", rabbitmq.Config{Queue: "q", URL: "amqp://localhost", Host: "localhost"}, []string{"URL"}},
		{"URL with options", rabbitmq.Config{Queue: "q", URL: "amqp://localhost/?heartbeat=10"}, []string{"URL"}},
		{"URL of another scheme", rabbitmq.Config{Queue: "q", URL: "http://localhost"}, []string{"URL"}},
		{"URL without a scheme", rabbitmq.Config{Queue: "q", URL: "localhost:5672"}, []string{"URL"}},
		{"URL with a port that is none", rabbitmq.Config{Queue: "q", URL: "amqp://localhost:0"}, []string{"URL"}},
		{"declared otherwise than possible", rabbitmq.Config{Queue: "q", Declare: &rabbitmq.QueueDeclare{Type: rabbitmq.Quorum, Exclusive: true, Name: "r"}},
			[]string{"Declare.Name", "Declare.Durable", "Declare.Type"}},
		{"a stream", rabbitmq.Config{Queue: "q", Declare: &rabbitmq.QueueDeclare{Durable: true, Arguments: rabbitmq.Table{"x-queue-type": "stream"}}}, []string{"Declare.Type"}},
		{"a delivery limit that drops", rabbitmq.Config{Queue: "q", Declare: &rabbitmq.QueueDeclare{
			Durable: true, Type: rabbitmq.Quorum, Arguments: rabbitmq.Table{"x-delivery-limit": 20},
		}}, []string{"Declare.DeadLetterExchange"}},
		{"a delivery limit that innocent messages reach", rabbitmq.Config{Queue: "q", Declare: &rabbitmq.QueueDeclare{
			Durable: true, Type: rabbitmq.Quorum, DeadLetterExchange: "dead", Arguments: rabbitmq.Table{"x-delivery-limit": int32(4)},
		}}, []string{"Declare.Arguments"}},
		{"no delivery limit", rabbitmq.Config{Queue: "q", Declare: &rabbitmq.QueueDeclare{
			Durable: true, Type: rabbitmq.Quorum, Arguments: rabbitmq.Table{"x-delivery-limit": -1},
		}}, nil},
		{"passive without a name", rabbitmq.Config{Declare: &rabbitmq.QueueDeclare{Passive: true}}, []string{"Declare.Passive"}},
		{"said twice", rabbitmq.Config{
			Queue:    "q",
			Declare:  &rabbitmq.QueueDeclare{SingleActiveConsumer: true, Arguments: rabbitmq.Table{"x-single-active-consumer": true}},
			Consumer: rabbitmq.Consumer{Priority: 1, Arguments: rabbitmq.Table{"x-priority": 1}},
		}, []string{"Declare.Arguments", "Consumer.Arguments"}},
		{"arguments that cannot be sent", rabbitmq.Config{
			Queue:     "q",
			Declare:   &rabbitmq.QueueDeclare{Arguments: rabbitmq.Table{"x": struct{}{}}},
			Consumer:  rabbitmq.Consumer{Arguments: rabbitmq.Table{"x": uint64(math.MaxUint64)}},
			Exchanges: []rabbitmq.ExchangeDeclare{{Name: "e", Kind: "direct", Arguments: rabbitmq.Table{long: 1}}},
			Bindings:  []rabbitmq.Binding{{Exchange: "e", Arguments: rabbitmq.Table{"x": []any{make(chan int)}}}},
		}, []string{"Declare.Arguments", "Exchanges[0].Arguments", "Bindings[0].Arguments", "Consumer.Arguments"}},
		{"exchanges and bindings without names", rabbitmq.Config{
			Queue: "q", Exchanges: []rabbitmq.ExchangeDeclare{{}}, Bindings: []rabbitmq.Binding{{Queue: "r"}},
		}, []string{"Exchanges[0].Name", "Exchanges[0].Kind", "Bindings[0].Exchange", "Bindings[0].Queue"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := rabbitmq.NewProducer(tt.cfg)
			if got := fields(p.Validate()); !slices.Equal(got, tt.want) {
				t.Errorf("mistakes in %q, want %q\n%v", got, tt.want, p.Validate())
			}
			if tt.want != nil {
				if err := p.Connect(t.Context()); err == nil {
					t.Error("an invalid config was used")
				}
			}
			if err := p.Close(); err != nil {
				t.Errorf("Close of a producer that was never connected: %v", err)
			}
		})
	}
}

func TestPublisherConfigMistakes(t *testing.T) {
	tests := []struct {
		name string
		cfg  rabbitmq.PublisherConfig
		want []string
	}{
		{"the least", rabbitmq.PublisherConfig{}, nil},
		{"with a topology", rabbitmq.PublisherConfig{
			Exchange: "e", Exchanges: []rabbitmq.ExchangeDeclare{{Name: "e", Kind: "direct"}},
			Queues: []rabbitmq.QueueDeclare{{Name: "q"}}, Bindings: []rabbitmq.Binding{{Queue: "q", Exchange: "e"}},
		}, nil},
		{"many", rabbitmq.PublisherConfig{
			URL: "ftp://x", Exchange: strings.Repeat("x", 256), RoutingKey: strings.Repeat("x", 256),
			ConfirmTimeout: -1, MaxBytes: -1, Backoff: broadway.Backoff{Initial: -1},
			Queues: []rabbitmq.QueueDeclare{{}}, Bindings: []rabbitmq.Binding{{}},
		}, []string{
			"URL", "Backoff.Initial", "Exchange", "RoutingKey", "ConfirmTimeout", "MaxBytes",
			"Queues[0].Name", "Bindings[0].Queue", "Bindings[0].Exchange",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := rabbitmq.NewPublisher(tt.cfg)
			if got := fields(p.Validate()); !slices.Equal(got, tt.want) {
				t.Errorf("mistakes in %q, want %q", got, tt.want)
			}
			if tt.want != nil {
				if err := p.Publish(t.Context(), broadway.Record{}); err == nil {
					t.Error("an invalid config was used")
				}
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	p := rabbitmq.NewProducer(rabbitmq.Config{Queue: "orders", AckTimeout: time.Minute})
	got := p.Describe(broadway.Limits{Share: 70})
	if got.Kind != "rabbitmq" || got.Name != "orders" || !got.Broker || got.Prefetch != 70 || got.AckTimeout != time.Minute || got.PartitionBy != nil {
		t.Errorf("%+v", got)
	}
	for action := broadway.ActionNone; action <= broadway.ActionStopPipeline; action++ {
		can := action == broadway.ActionReject || action == broadway.ActionRequeue || action == broadway.ActionRequeueOnce
		if got.Actions.Has(action) != can {
			t.Errorf("action %v: %t, want %t", action, got.Actions.Has(action), can)
		}
	}
	if got := rabbitmq.NewProducer(rabbitmq.Config{Queue: "orders"}).Describe(broadway.Limits{}).AckTimeout; got != 30*time.Minute {
		t.Errorf("the default time-out for acknowledging is %v", got)
	}
	if got := rabbitmq.NewProducer(rabbitmq.Config{Queue: "orders", AckTimeout: -1}).Describe(broadway.Limits{}).AckTimeout; got != 0 {
		t.Errorf("no time-out for acknowledging is told as %v", got)
	}
}

// Only of a queue that surely takes away no message for having come back too often is one
// given back for want of room.
func TestQueuesThatMayCountWhatComesBack(t *testing.T) {
	limit := func(n any) rabbitmq.Table { return rabbitmq.Table{"x-delivery-limit": n} }
	for name, tt := range map[string]struct {
		declare *rabbitmq.QueueDeclare
		counts  bool
	}{
		"declared elsewhere":              {nil, true},
		"checked only":                    {&rabbitmq.QueueDeclare{Passive: true}, true},
		"checked, and said to be classic": {&rabbitmq.QueueDeclare{Passive: true, Type: rabbitmq.Classic}, false},
		"the virtual host's type":         {&rabbitmq.QueueDeclare{Durable: true}, true},
		"classic":                         {&rabbitmq.QueueDeclare{Durable: true, Type: rabbitmq.Classic}, false},
		"quorum":                          {&rabbitmq.QueueDeclare{Durable: true, Type: rabbitmq.Quorum}, true},
		"with a limit":                    {&rabbitmq.QueueDeclare{Durable: true, Type: rabbitmq.Quorum, Arguments: limit(20)}, true},
		"without a limit":                 {&rabbitmq.QueueDeclare{Durable: true, Type: rabbitmq.Quorum, Arguments: limit(int64(-1))}, false},
	} {
		if got := rabbitmq.NewProducer(rabbitmq.Config{Queue: "q", Declare: tt.declare}).Describe(broadway.Limits{}).CountsReturns; got != tt.counts {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// A batch that the prefetch can never fill is a mistake in the config of the
// pipeline.
func TestPrefetchThatCannotFillABatch(t *testing.T) {
	_, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{rabbitmq.NewProducer(rabbitmq.Config{Queue: "orders", Prefetch: 50})},
		Processor: broadway.ProcessorConfig{Handler: nil},
		Batchers:  []broadway.BatcherConfig{{Size: 100}},
		Failure:   broadway.FailurePolicy{Action: broadway.ActionReject},
	})
	if err == nil || !strings.Contains(err.Error(), "can never fill") {
		t.Errorf("New: %v", err)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	const secret = "swordfish"
	cfg := rabbitmq.Config{
		URL: "amqp://me:" + secret + "@localhost/", Queue: "orders",
		Credentials: rabbitmq.Password("me", secret),
	}
	publisher := rabbitmq.PublisherConfig{URL: cfg.URL}
	credentials := rabbitmq.Credentials{Username: "me", Password: secret}
	encoded, err := json.Marshal(credentials)
	if err != nil {
		t.Fatal(err)
	}
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "config", cfg, "publisher", publisher, "credentials", credentials, "password", credentials.Password)
	for _, text := range []string{
		fmt.Sprintf("%v %+v %#v %s", cfg, cfg, cfg, cfg), fmt.Sprintf("%v %+v %#v", &cfg, &cfg, &cfg),
		fmt.Sprintf("%v %+v %#v %s", publisher, publisher, publisher, publisher),
		fmt.Sprintf("%v %+v %#v %q %x %d", credentials, credentials, credentials, credentials.Password, credentials.Password, credentials.Password),
		string(encoded), logged.String(),
	} {
		if strings.Contains(text, secret) || strings.Contains(text, "73776f7264") {
			t.Errorf("printed: %s", text)
		}
	}
	// What is not escaped may put a part of the password anywhere.
	for _, bad := range []string{"amqp://me:trom#bone@localhost/", "amqp://me:trom/bone@localhost:1/", "amqp://me:trom%zzbone@localhost/", "amqp://me:trom bone@localhost"} {
		_, err := broadway.New(broadway.Config{Producers: []broadway.Producer{rabbitmq.NewProducer(rabbitmq.Config{URL: bad, Queue: "orders"})}})
		if err == nil || strings.Contains(err.Error(), "trom") || strings.Contains(err.Error(), "bone") {
			t.Errorf("%s: %v", bad, err)
		}
		if text := fmt.Sprint(rabbitmq.Config{URL: bad, Queue: "orders"}); strings.Contains(text, "trom") || strings.Contains(text, "bone") {
			t.Errorf("printed: %s", text)
		}
	}
}

func TestConfigSaysWhere(t *testing.T) {
	for _, tt := range []struct {
		cfg  rabbitmq.Config
		want string
	}{
		{rabbitmq.Config{Queue: "orders"}, `rabbitmq queue "orders" at amqp://localhost:5672/`},
		{rabbitmq.Config{Queue: "orders", TLS: &tls.Config{}}, `rabbitmq queue "orders" at amqps://localhost:5671/`},
		{rabbitmq.Config{Queue: "orders", URL: "amqps://me:you@broker/a%2Fb"}, `rabbitmq queue "orders" at amqps://broker:5671/a%2Fb`},
		{rabbitmq.Config{Queue: "orders", Host: "::1", Port: 17, VHost: "v"}, `rabbitmq queue "orders" at amqp://[::1]:17/v`},
	} {
		if got := tt.cfg.String(); got != tt.want {
			t.Errorf("%s, want %s", got, tt.want)
		}
	}
}
