package pipelines_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gobroadway/gobroadway/pipelines"
	"github.com/gobroadway/gobroadway/pipelines/kafka"
	"github.com/gobroadway/gobroadway/pipelines/rabbitmq"
)

// allocated is how many bytes f allocates in all, garbage included.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// hostile are texts that were made to cost much.
func hostile() map[string]string {
	const small = "producers:\n  - memory: {payloads: [a]}\nprocessor: {handler: render}\n"
	bomb := func(open, separator, close string) string {
		var b strings.Builder
		b.WriteString("producers:\n  - feed:\n      url: x\n      extra:\n        a: &a {k: v}\n")
		for c := 'b'; c <= 'z'; c++ {
			fmt.Fprintf(&b, "        %c: &%c %s%s%s\n", c, c, open, strings.Repeat(fmt.Sprintf("*%c%s", c-1, separator), 20)+fmt.Sprintf("*%c", c-1), close)
		}
		return b.String() + "processor: {handler: render}\n"
	}
	blocks := func(n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(strings.Repeat(" ", i) + "a:\n")
		}
		return b.String()
	}
	return map[string]string{
		"20,000 open lists":         "producers: " + strings.Repeat("[", 20_000),
		"20,000 nested lists":       "name: " + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000),
		"9,000 nested lists":        small + "name: " + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000),
		"9,000 in an untyped value": "producers:\n  - feed: {url: x, extra: {a: " + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000) + "}}\n",
		"20,000 nested mappings":    "name: " + strings.Repeat("{a: ", 20_000) + strings.Repeat("}", 20_000),
		"700 nested blocks":         blocks(700),
		"20,000 dashes":             strings.Repeat("- ", 20_000),
		"alias bomb of lists":       bomb("[", ", ", "]"),
		"alias bomb of merges":      bomb("\n          <<: [", ", ", "]"),
		"merges within themselves":  "processor: &p\n  <<: [*p, *p, *p, *p]\n",
		"aliases of themselves":     "producers:\n  - feed: {url: x, extra: &e {a: [*e, *e, *e, *e]}}\n",
		"many unknown keys":         manyLines(200<<10, "key%d: x\n"),
		"many batchers":             small + "batchers:\n" + manyLines(200<<10, "  b%d: {reporter: none}\n"),
		"many producers":            "producers:\n" + manyLines(200<<10, "  - kind%d: {}\n") + "processor: {handler: render}\n",
		"many duplicates":           manyLines(200<<10, "name: x%d\n"),
		"many numbers as keys":      manyLines(200<<10, "%d: x\n"),
		"one long key":              strings.Repeat("k", 200<<10) + ": x\n",
		"one long value":            small + "name: " + strings.Repeat("v", 200<<10) + "\n",
		"one long number":           small + "max_unsettled: " + strings.Repeat("9", 200<<10) + "\n",
		"only comments":             strings.Repeat("# x\n", 60_000) + small + "x: y\n",
		"comments between":          manyLines(250<<10, "# x\nk%d: # y\n # z\n"),
		"only line breaks":          strings.Repeat("\n", 256<<10),
		"question marks":            strings.Repeat("? ", 20_000),
		"anchors":                   manyLines(200<<10, "- &a%d x\n"),
		"too large":                 strings.Repeat("x", 10<<20),
		"control characters":        "\x1b[31mname: x\n",
		"terminal codes in a key":   "\"\\e[31mred\": x\n",
		"nothing but a mark":        "\ufeff",
		"UTF-16":                    "\xff\xfen\x00a\x00m\x00e\x00:\x00 \x00x\x00\n\x00",
	}
}

func manyLines(bytes int, format string) string {
	var b strings.Builder
	for i := 0; b.Len() < bytes; i++ {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func TestHostileFilesAreRefusedAtLittleCost(t *testing.T) {
	for name, text := range hostile() {
		t.Run(name, func(t *testing.T) {
			var err error
			cost := allocated(func() { _, err = pipelines.Parse("hostile.yaml", []byte(text), program()) })
			var all *pipelines.Error
			require.ErrorAs(t, err, &all)
			require.NotEmpty(t, all.Problems)
			require.LessOrEqual(t, len(all.Problems), 100)
			require.Less(t, len(err.Error()), 64<<10, "the message stays readable")
			require.NotContains(t, err.Error(), "\x1b", "no terminal codes")
			require.Less(t, cost, uint64(128<<20), "allocated in all")
			t.Logf("%d KiB allocated, %d problems, the first: %s", cost>>10, len(all.Problems)+all.More, all.Problems[0])
		})
	}
}

// The largest numbers that a file may say must not make New reserve what they
// promise.
func TestTheLargestNumbersAreCheap(t *testing.T) {
	var err error
	cost := allocated(func() {
		_, err = pipelines.Parse("large.yaml", []byte(`
producers: [{memory: {payloads: [a], partitions: 10000}}]
processor: {handler: render, concurrency: 4096, max_demand: 1000000, min_demand: 1, partition_by: user}
batchers: {default: {reporter: store, concurrency: 4096, size: 1000000, bytes: 1000GiB}}
failure: {max_attempts: 1000, action: drop}
max_unsettled: 10000000
max_unsettled_bytes: 1000GiB
`), program())
	})
	require.NoError(t, err)
	require.Less(t, cost, uint64(128<<20))
	t.Logf("%d MiB allocated", cost>>20)
}

func TestAProblemBeyondTheHundredthIsCounted(t *testing.T) {
	_, err := pipelines.Parse("many.yaml", []byte(manyLines(2_000, "key%d: x\n")), program())
	var all *pipelines.Error
	require.ErrorAs(t, err, &all)
	require.Len(t, all.Problems, 100)
	require.Positive(t, all.More)
	require.Contains(t, err.Error(), fmt.Sprintf("\nand %d more", all.More))
}

func TestLoadSaysThatAFileCannotBeRead(t *testing.T) {
	_, err := pipelines.Load(filepath.Join(t.TempDir(), "none.yaml"), program())
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = pipelines.Load(t.TempDir(), program())
	require.Error(t, err)
	require.False(t, errors.As(err, new(*pipelines.Error)), "that is no mistake in the file")
}

func TestLoadReadsNoMoreThanAPipelineNeeds(t *testing.T) {
	name := filepath.Join(t.TempDir(), "huge.yaml")
	require.NoError(t, os.WriteFile(name, bytes.Repeat([]byte("# x\n"), 4<<20), 0o600))
	var err error
	cost := allocated(func() { _, err = pipelines.Load(name, program()) })
	require.ErrorContains(t, err, "is larger than 256 KiB")
	require.Less(t, cost, uint64(4<<20))
}

func FuzzParse(f *testing.F) {
	for _, folder := range []string{"valid", "invalid"} {
		for _, file := range files(f, folder, 1) {
			text, err := os.ReadFile(file)
			require.NoError(f, err)
			f.Add(text)
		}
	}
	f.Setenv("FEED_TOKEN", "swordfish")
	f.Fuzz(func(t *testing.T, text []byte) {
		r := program()
		kafka.Register(r)
		rabbitmq.Register(r)
		list, err := pipelines.Parse("fuzz.yaml", text, r)
		if err == nil {
			require.NotEmpty(t, list)
			for _, p := range list {
				require.NotEmpty(t, p.Topology())
			}
			return
		}
		require.Nil(t, list)
		var all *pipelines.Error
		require.ErrorAs(t, err, &all)
		require.LessOrEqual(t, len(all.Problems), 100)
		lines := bytes.Count(text, []byte("\n")) + bytes.Count(text, []byte("\r")) + bytes.Count(text, []byte("\u0085")) +
			bytes.Count(text, []byte("\u2028")) + bytes.Count(text, []byte("\u2029")) + 1
		for _, p := range all.Problems {
			require.NotEmpty(t, p.Message)
			require.LessOrEqual(t, p.Line, 2*lines, "a line that is there; UTF-16 has more of them than the bytes say")
		}
	})
}
