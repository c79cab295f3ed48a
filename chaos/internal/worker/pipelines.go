package worker

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/pipelines"
	"github.com/gobroadway/gobroadway/pipelines/kafka"
	"github.com/gobroadway/gobroadway/pipelines/rabbitmq"
)

// loadPipelines is "worker -pipelines FILE": it loads a file of pipelines as a user's program does, says what is wrong, and then how much
// memory that took. It does not run them.
func loadPipelines(file string) int {
	registry := pipelines.NewRegistry()
	kafka.Register(registry)
	rabbitmq.Register(registry)
	registry.Processor("handle", func(context.Context, *broadway.Message) error { return nil })
	registry.Reporter("report", func(context.Context, *broadway.Batch) error { return nil })
	list, err := pipelines.Load(file, registry)
	status, failure := os.ReadFile("/proc/self/status")
	if failure != nil {
		fmt.Fprintln(os.Stderr, failure)
		return ExitFailed
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		if strings.HasPrefix(line, "VmHWM:") {
			fmt.Println(line)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return ExitConfig
	}
	fmt.Println("pipelines:", len(list))
	return ExitClean
}
