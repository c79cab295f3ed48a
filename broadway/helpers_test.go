package broadway_test

import (
	"context"
	"errors"
	"log/slog"

	"github.com/gobroadway/gobroadway/broadway"
)

var (
	errFail = errors.New("fails")
	quiet   = slog.New(slog.DiscardHandler)
)

func reportNothing(context.Context, *broadway.Batch) error { return nil }
