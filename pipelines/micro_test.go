package pipelines_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gobroadway/gobroadway/internal/micro"
	"github.com/gobroadway/gobroadway/pipelines"
)

// BenchmarkParse makes the pipelines of a file, or all of its mistakes.
func BenchmarkParse(b *testing.B) {
	b.Setenv("FEED_TOKEN", "swordfish")
	b.Setenv("EMPTY", "")
	var ops []micro.Op
	for _, file := range []string{"valid/smallest", "valid/everything", "valid/kafka", "valid/rabbitmq", "invalid/all-at-once"} {
		path := filepath.Join(testdata, file+".yaml")
		text, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		registry, valid := programFor(path), filepath.Dir(file) == "valid"
		ops = append(ops, micro.Op{Name: file, Run: func() {
			_, err := pipelines.Parse(path, text, registry)
			if wrong := new(pipelines.Error); valid != (err == nil) || !valid && !errors.As(err, &wrong) {
				panic(err)
			}
		}})
	}
	micro.Benchmark(b, ops)
}
