package publish_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/examples/news/internal/post"
	"github.com/gobroadway/gobroadway/examples/news/internal/publish"
)

// republish handles one post on one platform, under virtual time.
func republish(t *testing.T, patience publish.Patience, do func(ctx context.Context, attempt int, key string) (string, error)) (got post.Publication, took time.Duration, err error) {
	t.Helper()
	r := renderer(t)
	synctest.Test(t, func(t *testing.T) {
		b := publish.New(r, &journal{}, patience, &platform{name: "p", do: do})
		start := time.Now()
		var list []post.Publication
		list, err = b.Republish(t.Context(), onePost())
		took = time.Since(start)
		if len(list) == 1 {
			got = list[0]
		}
	})
	return got, took, err
}

var errFlaky = errors.New("flaky")

func TestAFailedCallIsMadeAgainWithTheSameKey(t *testing.T) {
	keys := map[string]bool{}
	got, took, err := republish(t, publish.Patience{}, func(_ context.Context, attempt int, key string) (string, error) {
		keys[key] = true
		if attempt < 4 {
			return "", errFlaky
		}
		return "r1", nil
	})
	if err != nil || got.Outcome != post.Published || got.Attempts != 4 || got.RemoteID != "r1" || len(keys) != 1 || got.Key == "" {
		t.Errorf("%+v, keys %v, %v", got, keys, err)
	}
	if least := 350 * time.Millisecond * 3 / 4; took < least || got.Latency != took { // 50 + 100 + 200 ms, less jitter
		t.Errorf("it took %v, and says %v", took, got.Latency)
	}
}

func TestAPlatformIsGivenUpAfterItsAttempts(t *testing.T) {
	got, _, err := republish(t, publish.Patience{Attempts: 3}, func(context.Context, int, string) (string, error) {
		return "", errFlaky
	})
	if err != nil || got.Outcome != post.GivenUp || got.Attempts != 3 || got.Error != "flaky" || got.RemoteID != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestARefusalIsNotTriedAgain(t *testing.T) {
	got, took, err := republish(t, publish.Patience{}, func(context.Context, int, string) (string, error) {
		return "", fmt.Errorf("wrapped: %w", &publish.RefusedError{Status: 422, Reason: "no"})
	})
	if err != nil || got.Outcome != post.GivenUp || got.Attempts != 1 || took != 0 {
		t.Errorf("%+v after %v, %v", got, took, err)
	}
}

func TestAPlatformThatSaysWhenIsHeeded(t *testing.T) {
	for after, want := range map[time.Duration]time.Duration{7 * time.Second: 7 * time.Second, time.Hour: 10 * time.Second} {
		_, took, err := republish(t, publish.Patience{}, func(_ context.Context, attempt int, _ string) (string, error) {
			if attempt == 1 {
				return "", &publish.BusyError{Status: 429, After: after}
			}
			return "", nil
		})
		if err != nil || took < want*3/4 || took > want*5/4 {
			t.Errorf("told to wait %v it waited %v, %v", after, took, err)
		}
	}
}

func TestACallThatHangsIsCutOff(t *testing.T) {
	got, took, err := republish(t, publish.Patience{Timeout: 3 * time.Second}, func(ctx context.Context, attempt int, _ string) (string, error) {
		if attempt == 1 {
			<-ctx.Done()
			return "", context.Cause(ctx)
		}
		return "r", nil
	})
	if err != nil || got.Outcome != post.Published || got.Attempts != 2 || took < 3*time.Second || took > 4*time.Second {
		t.Errorf("%+v after %v, %v", got, took, err)
	}
}

func TestAPlatformThatKeepsFailingIsLeftAlone(t *testing.T) {
	r := renderer(t)
	synctest.Test(t, func(t *testing.T) {
		works := false
		p := &platform{name: "p", do: func(context.Context, int, string) (string, error) {
			if works {
				return "r", nil
			}
			return "", errFlaky
		}}
		b := publish.New(r, &journal{}, publish.Patience{Attempts: 100, Down: 4, Rest: time.Minute}, p)
		if _, err := b.Republish(t.Context(), onePost()); !errors.Is(err, publish.ErrDown) {
			t.Fatal(err)
		}
		calls := p.attempts
		if _, err := b.Republish(t.Context(), onePost()); !errors.Is(err, publish.ErrDown) || p.attempts != calls {
			t.Fatalf("%v after %d more calls", err, p.attempts-calls)
		}
		works = true
		time.Sleep(time.Minute) // virtual
		list, err := b.Republish(t.Context(), onePost())
		if err != nil || list[0].Outcome != post.Published {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

func TestAnEndingIsNoOutcome(t *testing.T) {
	r := renderer(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stop")
		j := &journal{}
		b := publish.New(r, j, publish.Patience{}, &platform{name: "p", do: func(ctx context.Context, _ int, _ string) (string, error) {
			cancel(stop)
			<-ctx.Done()
			return "", ctx.Err()
		}})
		if list, err := b.Republish(ctx, onePost()); !errors.Is(err, stop) || len(j.kept) != 0 {
			t.Errorf("%+v, %v, remembered %v", list, err, j.kept)
		}
	})
}
