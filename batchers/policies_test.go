package batchers_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/batchers"
	"github.com/gobroadway/gobroadway/broadway"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func message(payload string) *broadway.Message {
	return broadway.NewMessage(broadway.NewAckRef(acknowledgers.Noop{}, nil, 0), 0, []byte(payload))
}

// split does what a batcher does with messages that come one second apart, and
// gives the batches. What is open at the end stands last, behind a "…".
func split(p broadway.BatchPolicy, payloads []string) [][]string {
	var closed [][]string
	var open []string
	var state broadway.BatchState
	end := func() { closed, open = append(closed, open), nil }
	for i, payload := range payloads {
		now, m := start.Add(time.Duration(i)*time.Second), message(payload)
		if at := deadline(state); len(open) > 0 && !at.IsZero() && !at.After(now) {
			end()
		}
		if len(open) > 0 && !state.Fits(m) {
			end()
		}
		if len(open) == 0 {
			state = p.Open(now)
		}
		open = append(open, payload)
		if state.Add(m) {
			end()
		}
	}
	if len(open) > 0 {
		open = append(open, "…")
		end()
	}
	return closed
}

func deadline(s broadway.BatchState) time.Time {
	if s == nil {
		return time.Time{}
	}
	return s.Deadline()
}

func initial(m *broadway.Message) byte { return m.Payload[0] }

func TestPoliciesCloseBatches(t *testing.T) {
	size := func(m *broadway.Message) int64 { return int64(len(m.Payload)) }
	endOfFile := batchers.Func(0, func(n int, m *broadway.Message) (int, bool) { return n + 1, strings.HasSuffix(string(m.Payload), ".") })
	for _, c := range []struct {
		name   string
		policy broadway.BatchPolicy
		in     string
		want   string
	}{
		{"count", batchers.Count(3), "a b c d e f g", "a b c|d e f|g …"},
		{"count of one", batchers.Count(1), "a b", "a|b"},
		{"count below one", batchers.Count(-5), "a b", "a|b"},
		{"bytes, exactly", batchers.Bytes(4), "aa bb cc", "aa bb|cc …"},
		{"bytes, before too many", batchers.Bytes(4), "aaa bb c", "aaa|bb c …"},
		{"bytes, one larger", batchers.Bytes(4), "a bbbbbbbb c", "a|bbbbbbbb|c …"},
		{"bytes, all larger", batchers.Bytes(0), "a b", "a|b"},
		{"weight below zero", batchers.Weight(2, func(*broadway.Message) int64 { return -7 }), "a b c", "a b c …"},
		{"weight near overflow", batchers.Weight(1<<63-1, func(*broadway.Message) int64 { return 1<<63 - 2 }), "a b c", "a|b|c …"},
		{"weight", batchers.Weight(3, size), "a b c dd e", "a b c|dd e"},
		{"age", batchers.Age(3 * time.Second), "a b c d e f g", "a b c|d e f|g …"},
		{"runs", batchers.Run(initial), "a1 a2 b1 a3 a4", "a1 a2|b1|a3 a4 …"},
		{"function", endOfFile, "a b. c. d", "a b.|c.|d …"},
		{"any of none", batchers.Any(), "a b c", "a b c …"},
		{"any of one", batchers.Any(batchers.Count(2)), "a b c", "a b|c …"},
		{"any: the second closes", batchers.Any(batchers.Count(5), endOfFile), "a b. c d e f g h", "a b.|c d e f g|h …"},
		{"any: each is told of every message", batchers.Any(batchers.Count(3), batchers.Count(4)), "a b c d e f", "a b c|d e f"},
		{"any: earliest deadline", batchers.Any(batchers.Count(9), batchers.Age(5*time.Second), batchers.Age(2*time.Second)), "a b c", "a b|c …"},
		{"any: one does not fit", batchers.Any(batchers.Run(initial), batchers.Bytes(4)), "a1 a2 a3 b1", "a1 a2|a3|b1 …"},
		{"any within any", batchers.Any(batchers.Any(batchers.Count(2)), batchers.Count(9)), "a b c", "a b|c …"},
	} {
		var got []string
		for _, batch := range split(c.policy, strings.Fields(c.in)) {
			got = append(got, strings.Join(batch, " "))
		}
		if joined := strings.Join(got, "|"); joined != c.want {
			t.Errorf("%s: %s became %s, want %s", c.name, c.in, joined, c.want)
		}
	}
}

// limit is a policy and what it says of a whole batch: whether it is full, and
// whether one more message would be too much.
type limit struct {
	policy broadway.BatchPolicy
	full   func(batch []string) bool
	tooBig func(batch []string, next string) bool
}

func weigh(batch []string) int { return len(strings.Join(batch, "")) }

func genLimit() *rapid.Generator[limit] {
	never := func([]string, string) bool { return false }
	return rapid.Custom(func(t *rapid.T) limit {
		n := rapid.IntRange(1, 12).Draw(t, "n")
		switch rapid.SampledFrom([]string{"count", "bytes", "run", "func", "age"}).Draw(t, "kind") {
		case "count":
			return limit{batchers.Count(n), func(b []string) bool { return len(b) >= n }, never}
		case "bytes":
			return limit{
				batchers.Bytes(int64(n)),
				func(b []string) bool { return weigh(b) >= n },
				func(b []string, next string) bool { return weigh(b)+len(next) > n },
			}
		case "run":
			return limit{
				batchers.Run(initial),
				func([]string) bool { return false },
				func(b []string, next string) bool { return b[0][0] != next[0] },
			}
		case "age":
			return limit{
				batchers.Age(time.Duration(n) * time.Second),
				func([]string) bool { return false },
				func(b []string, _ string) bool { return len(b) >= n },
			}
		}
		return limit{
			batchers.Func("", func(last string, m *broadway.Message) (string, bool) {
				return string(m.Payload), last == string(m.Payload)
			}),
			func(b []string) bool { return len(b) > 1 && b[len(b)-1] == b[len(b)-2] },
			never,
		}
	})
}

// Whatever the policies: batches in a row are the messages in their order, each
// is closed when one of the policies says so, and not before.
func TestAnyClosesWhenOneOfItsPoliciesDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := rapid.SliceOfN(genLimit(), 1, 4).Draw(t, "limits")
		payloads := rapid.SliceOf(rapid.StringMatching(`[ab][xyz]{0,5}`)).Draw(t, "payloads")
		var policies []broadway.BatchPolicy
		for _, l := range limits {
			policies = append(policies, l.policy)
		}
		batches := split(batchers.Any(policies...), payloads)
		all := slices.DeleteFunc(slices.Concat(batches...), func(s string) bool { return s == "…" })
		if !slices.Equal(all, payloads) {
			t.Fatalf("%q became %q", payloads, batches)
		}
		for i, batch := range batches {
			batch = slices.DeleteFunc(slices.Clone(batch), func(s string) bool { return s == "…" })
			for n := range batch {
				if n > 0 && due(limits, batch[:n], batch[n]) {
					t.Fatalf("batch %q should have ended after %d", batch, n)
				}
			}
			if i+1 < len(batches) && !due(limits, batch, batches[i+1][0]) {
				t.Fatalf("batch %q ended before %q without a reason", batch, batches[i+1][0])
			}
		}
	})
}

func due(limits []limit, batch []string, next string) bool {
	return slices.ContainsFunc(limits, func(l limit) bool { return l.full(batch) || l.tooBig(batch, next) })
}

// A policy is a value: batches that are open at once do not know of each other.
func TestOpenBatchesAreIndependent(t *testing.T) {
	p := batchers.Any(batchers.Count(2), batchers.Bytes(10), batchers.Run(initial), batchers.Func(0, func(n int, _ *broadway.Message) (int, bool) { return n + 1, n+1 == 2 }))
	one, other := p.Open(start), p.Open(start)
	if one.Add(message("a")) || other.Add(message("b")) {
		t.Error("a first message of two completes its batch")
	}
	if one.Fits(message("b")) || !other.Fits(message("b")) {
		t.Error("a batch knows the run of another")
	}
	if !one.Add(message("a")) {
		t.Error("the second message of two does not complete its batch")
	}
}

type envelope struct{ key, origin string }

func (e envelope) MessageKey() []byte                { return []byte(e.key) }
func (e envelope) MessageOrigin() string             { return e.origin }
func (e envelope) MessageHeaders() []broadway.Header { return nil }

func TestKeysComeFromMetadata(t *testing.T) {
	m := message("x")
	if batchers.MessageKey(m) != "" || batchers.MessageOrigin(m) != "" {
		t.Error("a message without metadata has a key or an origin")
	}
	m.Metadata = envelope{"k", "orders"}
	if batchers.MessageKey(m) != "k" || batchers.MessageOrigin(m) != "orders" {
		t.Errorf("key %q, origin %q", batchers.MessageKey(m), batchers.MessageOrigin(m))
	}
}

func TestHashedKeysAreFewStableAndEven(t *testing.T) {
	hashed := batchers.Hashed(8, func(m *broadway.Message) string { return string(m.Payload) })
	count := map[string]int{}
	for i := range 8000 {
		payload := strings.Repeat("k", i%7) + time.Duration(i).String()
		key := hashed(message(payload))
		if key != hashed(message(payload)) {
			t.Fatalf("%q has two keys", payload)
		}
		count[key]++
	}
	for key, n := range count {
		if n < 800 || n > 1200 {
			t.Errorf("key %s has %d of 8000 messages", key, n)
		}
	}
	if len(count) != 8 {
		t.Errorf("%d keys, want 8", len(count))
	}
	if got := hashed(message("stable")); got != "6" {
		t.Errorf("the key of a payload changed to %s: other processes would disagree", got)
	}
	if got := batchers.Hashed(0, batchers.MessageKey)(message("x")); got != "0" {
		t.Errorf("key %s of no keys", got)
	}
}
