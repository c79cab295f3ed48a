package batchers

import (
	"strconv"

	"github.com/gobroadway/gobroadway/broadway"
)

// The functions here are for BatcherConfig.KeyBy. Each key has a batch of its
// own, and takes its time to fill: the fewer keys, the fuller the batches.

// MessageKey is the key that m has at its source; "" when it has none, or when
// the source knows no keys. See [broadway.Enveloped].
func MessageKey(m *broadway.Message) string {
	if e, ok := m.Metadata.(broadway.Enveloped); ok {
		return string(e.MessageKey())
	}
	return ""
}

// MessageOrigin is the topic or queue that m came from; "" when the source does
// not say. See [broadway.Enveloped].
func MessageOrigin(m *broadway.Message) string {
	if e, ok := m.Metadata.(broadway.Enveloped); ok {
		return e.MessageOrigin()
	}
	return ""
}

// Hashed spreads the keys of key over n batch keys, "0" to n-1, so that however
// many keys there are, no more than n batches are open. Messages of one key stay
// together, in every process the same (FNV-1a). n below 1 counts as 1.
func Hashed(n int, key func(*broadway.Message) string) func(*broadway.Message) string {
	names := make([]string, max(n, 1))
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	return func(m *broadway.Message) string {
		h := uint64(14695981039346656037)
		for _, b := range []byte(key(m)) {
			h = (h ^ uint64(b)) * 1099511628211
		}
		return names[h%uint64(len(names))]
	}
}
