package standin_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/examples/news/internal/standin"
)

func toot(ctx context.Context, t *testing.T, w *standin.World, text, key string) (int, error) {
	t.Helper()
	form := url.Values{"status": {text}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.StatusesURL()+"/api/v1/statuses", strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Authorization", "Bearer "+w.Token())
	req.Header.Set("Idempotency-Key", key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// sign makes a webhook call; spoil may break it before it is sent.
func hook(t *testing.T, w *standin.World, body string, spoil func(*http.Request)) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, w.WebhookURL(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	stamp := fmt.Sprint(time.Now().Unix())
	mac := hmac.New(sha256.New, []byte(w.WebhookSecret()))
	mac.Write([]byte("key-1." + stamp + "." + body))
	req.Header.Set("Webhook-Id", "key-1")
	req.Header.Set("Webhook-Timestamp", stamp)
	req.Header.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	if spoil != nil {
		spoil(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

// somePost is the id and address of one post of w.
func somePost(t *testing.T, w *standin.World) note {
	t.Helper()
	_, page := get(t, w.PostsURL()+"/api/v1/timelines/tag/programming")
	return page[0]
}

func TestOneKeyPublishesOnce(t *testing.T) {
	w := serve(t, standin.Config{Seed: 1, Posts: 50})
	p := somePost(t, w)
	for range 3 {
		if code, err := toot(t.Context(), t, w, "news\n"+p.URL, "k1"); code != 200 || err != nil {
			t.Fatal(code, err)
		}
	}
	if code, err := toot(t.Context(), t, w, "news\n"+p.URL, "k2"); code != 200 || err != nil {
		t.Fatal(code, err)
	}
	effects := w.Ledger().Effects()
	if len(effects) != 2 || effects[0].Post != p.ID || effects[0].Key != "k1" || effects[1].Key != "k2" {
		t.Errorf("%+v", effects)
	}
	if c := w.Ledger().Counts(); c.Replays[standin.PlatformStatuses] != 2 || c.Attempts[standin.PlatformStatuses] != 4 {
		t.Errorf("%+v", c)
	}
}

func TestTheStatusPlatformHasRules(t *testing.T) {
	w := serve(t, standin.Config{Seed: 1, Posts: 10})
	for _, c := range []struct {
		text string
		want int
	}{
		{"", 422},
		{strings.Repeat("ż", 500), 200},
		{strings.Repeat("ż", 501), 422},
		{strings.Repeat("x", 470) + " https://e.example/" + strings.Repeat("y", 400), 200}, // a link costs 23
	} {
		if code, err := toot(t.Context(), t, w, c.text, "k"+fmt.Sprint(len(c.text))); code != c.want || err != nil {
			t.Errorf("%.20q…: %d %v, want %d", c.text, code, err, c.want)
		}
	}
	resp, err := http.Post(w.StatusesURL()+"/api/v1/statuses", "application/x-www-form-urlencoded", strings.NewReader("status=x"))
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != 401 {
		t.Errorf("without a token: %s", resp.Status)
	}
}

func TestTheWebhookChecksSignatures(t *testing.T) {
	w := serve(t, standin.Config{Seed: 1, Posts: 50})
	p := somePost(t, w)
	body := fmt.Sprintf(`{"source":%q,"markdown":"hi"}`, p.URL)
	for name, spoil := range map[string]func(*http.Request){
		"another id":   func(r *http.Request) { r.Header.Set("Webhook-Id", "key-2") },
		"no id":        func(r *http.Request) { r.Header.Del("Webhook-Id") },
		"old":          func(r *http.Request) { r.Header.Set("Webhook-Timestamp", "1000000000") },
		"no signature": func(r *http.Request) { r.Header.Del("Webhook-Signature") },
		"version 2":    func(r *http.Request) { r.Header.Set("Webhook-Signature", "v2,AAAA") },
	} {
		if code := hook(t, w, body, spoil); code != 401 {
			t.Errorf("%s: %d", name, code)
		}
	}
	if n := len(w.Ledger().Effects()); n != 0 {
		t.Fatalf("%d unsigned effects", n)
	}
	if code := hook(t, w, body, nil); code != 202 {
		t.Fatal(code)
	}
	if e := w.Ledger().Effects(); len(e) != 1 || e[0].Post != p.ID || e[0].Platform != standin.PlatformWebhook {
		t.Errorf("%+v", e)
	}
}

func TestFaultsComeBeforeAndAfterTheEffect(t *testing.T) {
	for name, c := range map[string]struct {
		faults  standin.Faults
		code    int
		hangs   bool
		effects int
	}{
		"down":     {standin.Faults{Down: 1000}, 503, false, 0},
		"limited":  {standin.Faults{Limited: 1000}, 429, false, 0},
		"refused":  {standin.Faults{Refused: 1000}, 422, false, 0},
		"broken":   {standin.Faults{Broken: 1000}, 500, false, 1},
		"hung":     {standin.Faults{Hung: 1000}, 0, true, 0},
		"vanished": {standin.Faults{Vanished: 1000}, 0, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := serve(t, standin.Config{Seed: 1, Posts: 10, Faults: c.faults})
			ctx, cancel := context.WithCancel(t.Context())
			if c.hangs {
				ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
			}
			defer cancel()
			code, err := toot(ctx, t, w, "x", "k")
			if code != c.code || errors.Is(err, context.DeadlineExceeded) != c.hangs {
				t.Errorf("%d, %v", code, err)
			}
			if n := len(w.Ledger().Effects()); n != c.effects {
				t.Errorf("%d effects, want %d", n, c.effects)
			}
		})
	}
}

func TestAKeyMeetsAtMostThreeFaults(t *testing.T) {
	w := serve(t, standin.Config{Seed: 1, Posts: 10, Faults: standin.Faults{Down: 1000}})
	for attempt, want := range []int{503, 503, 503, 200} {
		if code, err := toot(t.Context(), t, w, "x", "k"); code != want || err != nil {
			t.Errorf("attempt %d: %d %v", attempt+1, code, err)
		}
	}
}

func TestAHungCallEndsWithTheWorld(t *testing.T) {
	w, err := standin.Listen(standin.Config{Posts: 1, Faults: standin.Faults{Hung: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Serve(ctx) }()
	called := make(chan error, 1)
	go func() {
		_, err := toot(context.WithoutCancel(t.Context()), t, w, "x", "k")
		called <- err
	}()
	for w.Ledger().Counts().Attempts[standin.PlatformStatuses] == 0 {
		select {
		case err := <-called:
			t.Fatal("answered", err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-called; err == nil {
		t.Error("the hung call was answered")
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func TestTheLedgerSurvivesAKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	first := serve(t, standin.Config{Seed: 1, Posts: 50, Ledger: path})
	p := somePost(t, first)
	if code, err := toot(t.Context(), t, first, p.URL, "k1"); code != 200 || err != nil {
		t.Fatal(code, err)
	}
	// The first world is not closed: the second sees what a killed one leaves,
	// with half a line at the end.
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(`{"kind":"effect","effe`); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	second := serve(t, standin.Config{Seed: 1, Posts: 50, Ledger: path})
	if len(second.Ledger().Served()) != len(first.Ledger().Served()) {
		t.Error("the second world forgot what was served")
	}
	if code, err := toot(t.Context(), t, second, p.URL, "k1"); code != 200 || err != nil {
		t.Fatal(code, err)
	}
	if e := second.Ledger().Effects(); len(e) != 1 || e[0].Post != p.ID {
		t.Errorf("%+v", e)
	}
	raw, err := os.ReadFile(path)
	if err != nil || !bytes.HasSuffix(raw, []byte("}\n")) {
		t.Errorf("the file ends with %q (%v)", raw[max(0, len(raw)-20):], err)
	}
}
