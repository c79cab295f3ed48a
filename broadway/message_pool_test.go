package broadway_test

import (
	"context"
	"io"
	"testing"

	"github.com/gobroadway/gobroadway/broadway"
)

// pooled is a source of slabs from a pool, of which it returns as many messages as part says.
type pooled struct {
	pool  broadway.MessagePool[int]
	ref   *broadway.AckRef
	part  func([]*broadway.Message) []*broadway.Message
	slabs int
	seq   int64
	made  map[*broadway.Message]int
}

func (s *pooled) Fetch(_ context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	if s.slabs == 0 {
		return nil, io.EOF
	}
	if d.Messages < 4 {
		s.seq++
		s.ref.Take(1)
		return []*broadway.Message{broadway.NewMessage(s.ref, s.seq, nil)}, nil
	}
	s.slabs--
	s.ref.Take(4)
	messages, numbers := s.pool.Get(4)
	for i, m := range messages {
		numbers[i] = 7
		s.seq++
		m.Init(s.ref, s.seq, []byte("x"))
		s.made[m]++
	}
	part := s.part(messages)
	s.ref.Untake(4 - len(part))
	return part, nil
}

func (s *pooled) Ack(context.Context, *broadway.AckRef, []*broadway.Message, []*broadway.Message) error {
	return nil
}

func (s *pooled) Close() error { return nil }

// TestMessagesAreUsedAgainOnceAllOfThemHaveSettled: as new, and only if the pipeline
// had the whole slab.
func TestMessagesAreUsedAgainOnceAllOfThemHaveSettled(t *testing.T) {
	for _, tt := range []struct {
		name  string
		part  func([]*broadway.Message) []*broadway.Message
		again bool
	}{
		{"whole", func(m []*broadway.Message) []*broadway.Message { return m }, true},
		{"without the last", func(m []*broadway.Message) []*broadway.Message { return m[:3] }, false},
		{"without the first", func(m []*broadway.Message) []*broadway.Message { return m[1:] }, false},
		{"as two slabs", func(m []*broadway.Message) []*broadway.Message { m[2].BeginSlab(); return m }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &pooled{part: tt.part, slabs: 50, made: map[*broadway.Message]int{}}
			s.ref = broadway.NewAckRef(s, nil, 0)
			run(t, broadway.Config{
				Producers:    []broadway.Producer{s},
				MaxUnsettled: 8,
				Processor: broadway.ProcessorConfig{Concurrency: 2, Handler: func(_ context.Context, m *broadway.Message) error {
					if m.Value != nil || m.Batcher != "" || m.BatchKey != "" || m.BatchMode != broadway.Bulk || m.Payload != nil && *m.Metadata.(*int) != 7 {
						t.Errorf("a message is not as new: %v", m)
					}
					m.Value, m.BatchKey, m.BatchMode = "value", "key", broadway.Flush
					return nil
				}},
				Batchers: []broadway.BatcherConfig{{Size: 2, Reporter: func(context.Context, *broadway.Batch) error { return nil }}},
			})
			if again := len(s.made) < 50*4; again != tt.again {
				t.Errorf("%d messages were made for 50 slabs of 4", len(s.made))
			}
		})
	}
}

// Who appends to what Get returned does not write over the rest of the slab.
func TestWhatIsAppendedToASlabIsNoPartOfIt(t *testing.T) {
	s := &pooled{}
	s.ref = broadway.NewAckRef(s, nil, 0)
	messages, metadata := s.pool.Get(2)
	if messages = append(messages, broadway.NewMessage(s.ref, 3, nil)); cap(metadata) != 2 || messages[2].Metadata != nil {
		t.Errorf("%d metadata", cap(metadata))
	}
	if first, _ := s.pool.Get(2); cap(first) != 2 {
		t.Errorf("a slab of two has room for %d", cap(first))
	}
}
