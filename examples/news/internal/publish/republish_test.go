package publish_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/examples/news/internal/post"
	"github.com/gobroadway/gobroadway/examples/news/internal/publish"
	"github.com/gobroadway/gobroadway/examples/news/internal/render"
	"github.com/gobroadway/gobroadway/examples/news/internal/standin"
)

func platforms(t *testing.T, w *standin.World, s *publish.Site) []publish.Platform {
	t.Helper()
	c := client(t, w)
	return []publish.Platform{s, publish.NewMastodon(w.StatusesURL(), w.Token(), c), publish.NewWebhook(w.WebhookURL(), w.WebhookSecret(), c)}
}

// effects counts what the platforms' own ledger says, by platform and post.
func effects(w *standin.World) map[string]map[string]int {
	out := map[string]map[string]int{standin.PlatformStatuses: {}, standin.PlatformWebhook: {}}
	for _, e := range w.Ledger().Effects() {
		out[e.Platform][e.Post]++
	}
	return out
}

func TestEveryPostIsOnEveryPlatformOnceWhateverGoesWrong(t *testing.T) {
	faults := standin.Faults{Down: 100, Broken: 100, Limited: 0, Hung: 30, Vanished: 30}
	w := serve(t, standin.Config{Seed: 5, Posts: 80, Faults: faults})
	s := site(t, t.TempDir())
	j := &journal{}
	patience := hasty
	patience.Timeout, patience.Down = 100*time.Millisecond, 1000
	b := publish.New(renderer(t), j, patience, platforms(t, w, s)...)
	list := posts(t, serve(t, standin.Config{Seed: 5, Posts: 80}), 80) // of a calm world
	for _, p := range list {
		got, err := b.Republish(t.Context(), p)
		if err != nil || len(got) != 3 {
			t.Fatal(got, err)
		}
		for _, one := range got {
			if one.Outcome != post.Published || one.Post != p.ID || one.Attempts < 1 {
				t.Errorf("%+v", one)
			}
		}
	}
	for name, counts := range effects(w) {
		for _, p := range list {
			if counts[p.ID] != 1 {
				t.Errorf("post %s is %d times on %s", p.ID, counts[p.ID], name)
			}
		}
	}
	for _, format := range render.Formats() {
		if ids, err := s.Published(format); len(ids) != len(list) || err != nil {
			t.Errorf("%d files of %s, %v", len(ids), format, err)
		}
	}
	c := w.Ledger().Counts()
	if c.Faults[standin.PlatformStatuses] < 10 || c.Replays[standin.PlatformWebhook] == 0 {
		t.Errorf("hardly anything went wrong: %+v", c)
	}
}

func TestWhatIsPublishedIsNotPublishedAgain(t *testing.T) {
	w := serve(t, standin.Config{Seed: 5, Posts: 10})
	s := site(t, t.TempDir())
	j := &journal{}
	p := posts(t, w, 1)[0]
	first, err := publish.New(renderer(t), j, hasty, platforms(t, w, s)...).Republish(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	calls := w.Ledger().Counts().Attempts
	second, err := publish.New(renderer(t), j, hasty, platforms(t, w, s)...).Republish(t.Context(), p) // after a restart
	if err != nil || !slices.Equal(first, second) {
		t.Errorf("%v\n%v, %v", first, second, err)
	}
	if again := w.Ledger().Counts().Attempts; again[standin.PlatformStatuses] != calls[standin.PlatformStatuses] || again[standin.PlatformWebhook] != calls[standin.PlatformWebhook] {
		t.Errorf("%v became %v", calls, again)
	}
}

func TestARestartGoesOnWhereItStopped(t *testing.T) {
	w := serve(t, standin.Config{Seed: 5, Posts: 10})
	j := &journal{}
	p := posts(t, w, 1)[0]
	all := platforms(t, w, site(t, t.TempDir()))
	down := &platform{name: "last", do: func(context.Context, int, string) (string, error) { return "", errFlaky }}
	patience := hasty
	patience.Down, patience.Attempts = 2, 100
	if _, err := publish.New(renderer(t), j, patience, append(slices.Clone(all), down)...).Republish(t.Context(), p); !errors.Is(err, publish.ErrDown) {
		t.Fatal(err)
	}
	down.do = func(context.Context, int, string) (string, error) { return "r", nil }
	got, err := publish.New(renderer(t), j, patience, append(slices.Clone(all), down)...).Republish(t.Context(), p)
	if err != nil || len(got) != 4 || got[3].RemoteID != "r" {
		t.Errorf("%+v, %v", got, err)
	}
	for name, counts := range effects(w) {
		if counts[p.ID] != 1 {
			t.Errorf("%d times on %s", counts[p.ID], name)
		}
	}
}

func TestAnEffectThatCouldNotBeRememberedIsNotRepeated(t *testing.T) {
	w := serve(t, standin.Config{Seed: 5, Posts: 10})
	p := posts(t, w, 1)[0]
	j := &journal{fail: 1}
	b := publish.New(renderer(t), j, hasty, publish.NewMastodon(w.StatusesURL(), w.Token(), client(t, w)))
	if _, err := b.Republish(t.Context(), p); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	if got, err := b.Republish(t.Context(), p); err != nil || got[0].Outcome != post.Published {
		t.Error(got, err)
	}
	if n := effects(w)[standin.PlatformStatuses][p.ID]; n != 1 {
		t.Errorf("published %d times", n)
	}
}

func TestARefusedPostIsGivenUpOnThatPlatformOnly(t *testing.T) {
	w := serve(t, standin.Config{Seed: 5, Posts: 10, Faults: standin.Faults{Refused: 1000}})
	p := posts(t, w, 1)[0]
	s := site(t, t.TempDir())
	got, err := publish.New(renderer(t), &journal{}, hasty, platforms(t, w, s)...).Republish(t.Context(), p)
	if err != nil || got[0].Outcome != post.Published || got[1].Outcome != post.GivenUp || got[2].Outcome != post.GivenUp || got[1].Attempts != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if len(w.Ledger().Effects()) != 0 {
		t.Error("something was published")
	}
}

func TestTheHandlerLeavesThePublicationsInTheMessage(t *testing.T) {
	j := &journal{}
	b := publish.New(renderer(t), j, hasty, &platform{name: "p", do: func(context.Context, int, string) (string, error) { return "r", nil }})
	payload, err := onePost().Encode()
	if err != nil {
		t.Fatal(err)
	}
	m := broadway.NewMessage(broadway.NewAckRef(nil, nil, 0), 1, payload)
	if err := b.Handle(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if list, is := m.Value.([]post.Publication); !is || len(list) != 1 || list[0].RemoteID != "r" {
		t.Errorf("%#v", m.Value)
	}
	if err := b.Handle(t.Context(), broadway.NewMessage(broadway.NewAckRef(nil, nil, 0), 2, []byte("no post"))); err == nil {
		t.Error("what is no post was handled")
	}
}

func TestGivingUpKeepsWhatIsPublished(t *testing.T) {
	j := &journal{}
	good := &platform{name: "good", do: func(context.Context, int, string) (string, error) { return "r", nil }}
	down := &platform{name: "down", do: func(context.Context, int, string) (string, error) { return "", errFlaky }}
	patience := hasty
	patience.Down, patience.Attempts = 2, 100
	b := publish.New(renderer(t), j, patience, good, down)
	if _, err := b.Republish(t.Context(), onePost()); !errors.Is(err, publish.ErrDown) {
		t.Fatal(err)
	}
	got, err := b.GiveUp(t.Context(), "42", errFlaky)
	if err != nil || len(got) != 2 || got[0].Outcome != post.Published || got[1].Outcome != post.GivenUp || got[1].Error != "flaky" {
		t.Errorf("%+v, %v", got, err)
	}
	calls := down.attempts
	if again, err := b.Republish(t.Context(), onePost()); err != nil || !slices.Equal(got, again) || down.attempts != calls {
		t.Errorf("what was given up was tried again: %+v, %v", again, err)
	}
}
