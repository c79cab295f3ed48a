package kafka_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if args := os.Getenv(mortalVariable); args != "" {
		os.Exit(runMortal(args))
	}
	goleak.VerifyTestMain(m)
}
