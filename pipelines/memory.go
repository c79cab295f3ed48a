package pipelines

import (
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// memorySpec is a source in this process: payloads that the file lists, or a
// queue that the program pushes to.
type memorySpec struct {
	Name           string        `yaml:"name"`
	Payloads       []string      `yaml:"payloads"`
	Queue          string        `yaml:"queue"`
	Partitions     int           `yaml:"partitions" max:"10000"`
	RedeliverAfter time.Duration `yaml:"redeliver_after"`
}

// memorySource decodes "memory: {payloads: […]}" and "memory: {queue: name}".
func (r *Registry) memorySource(s *Section) (broadway.Producer, error) {
	var spec memorySpec
	if err := s.Decode(&spec); err != nil {
		return nil, err
	}
	switch {
	case spec.Queue == "" && len(spec.Payloads) == 0:
		return nil, s.Fail("", "has neither payloads nor a queue")
	case spec.Queue != "" && len(spec.Payloads) > 0:
		return nil, s.Fail("queue", "cannot be combined with payloads")
	case spec.Queue != "" && (spec.Name != "" || spec.Partitions != 0 || spec.RedeliverAfter != 0):
		return nil, s.Fail("queue", "brings its own name, partitions and redeliver_after")
	}
	if spec.Queue != "" {
		queue, ok := r.queues[spec.Queue]
		if !ok {
			return nil, s.Fail("queue", "there is no queue %q; %s", excerpt(spec.Queue), registered(r.queues))
		}
		return memory.New(memory.Config{Queue: queue}), nil
	}
	cfg := memory.Config{QueueConfig: memory.QueueConfig{
		Name: spec.Name, Partitions: spec.Partitions, RedeliverAfter: spec.RedeliverAfter,
	}}
	for _, payload := range spec.Payloads {
		cfg.Payloads = append(cfg.Payloads, []byte(payload))
	}
	return memory.New(cfg), nil
}

// memoryPublisher decodes "memory: {queue: name}".
func (r *Registry) memoryPublisher(s *Section) (broadway.Publisher, error) {
	var spec struct {
		Queue string `yaml:"queue"`
	}
	if err := s.Decode(&spec); err != nil {
		return nil, err
	}
	queue, ok := r.queues[spec.Queue]
	if !ok {
		return nil, s.Fail("queue", "there is no queue %q; %s", excerpt(spec.Queue), registered(r.queues))
	}
	return keptOpen{queue}, nil
}

// keptOpen is a publisher that outlives the pipeline: the program owns its queue.
type keptOpen struct{ broadway.Publisher }

// Close leaves the publisher open.
func (keptOpen) Close() error { return nil }
