package metrics_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/gobroadway/gobroadway/broadway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// still is a pipeline that stands still: its Stats are what the test says.
type still struct{ stats broadway.Stats }

func (s *still) Stats() broadway.Stats { return s.stats }
