package broadway_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// TestAFiniteSourceIsAskedAgainForWhatCameBack requeues every message once: the
// source has said io.EOF by then, and the pipeline ends only when all is done.
func TestAFiniteSourceIsAskedAgainForWhatCameBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := memory.New(memory.Config{Payloads: payloads(20)})
		p := run(t, broadway.Config{
			Producers: []broadway.Producer{source},
			Processor: broadway.ProcessorConfig{Handler: func(_ context.Context, m *broadway.Message) error {
				if !m.Redelivered {
					return errors.New("not the first time")
				}
				return nil
			}},
			Failure: broadway.FailurePolicy{MaxAttempts: 1, Action: broadway.ActionRequeue},
		})
		if st, c := p.Stats(), source.Counts(); st.Succeeded != 20 || c.Requeued != 20 || c.Succeeded != 20 {
			t.Errorf("stats %+v\nsource %+v", st, c)
		}
	})
}
