package publish

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/gobroadway/gobroadway/examples/news/internal/render"
)

// Webhook publishes by an HTTP call: Markdown in JSON, signed after the Standard
// Webhooks specification (https://www.standardwebhooks.com), so that its
// receiver knows who sent it, and by its id whether it has it already.
type Webhook struct {
	url    string
	secret []byte
	client *http.Client
	now    func() time.Time
}

// NewWebhook makes the platform. secret is never logged.
func NewWebhook(url, secret string, client *http.Client) *Webhook {
	return &Webhook{url: url, secret: []byte(secret), client: client, now: time.Now}
}

// Name is "webhook".
func (w *Webhook) Name() string { return "webhook" }

// Format is Markdown.
func (w *Webhook) Format() string { return render.Markdown }

// event is the body of a call.
type event struct {
	Type     string   `json:"type"`
	Source   string   `json:"source"`
	Title    string   `json:"title"`
	Author   string   `json:"author"`
	Created  string   `json:"created_at"`
	Language string   `json:"language,omitempty"`
	Tags     []string `json:"tags"`
	Markdown string   `json:"markdown"`
}

// Publish makes one call.
func (w *Webhook) Publish(ctx context.Context, a *render.Article, key string) (string, error) {
	body, err := json.Marshal(event{
		Type: "post.published", Source: a.Post.URL, Title: a.Title, Author: a.Post.Author,
		Created: a.Post.CreatedAt.UTC().Format(time.RFC3339), Language: a.Post.Language,
		Tags: a.Post.Tags, Markdown: string(a.Formats[render.Markdown]),
	})
	if err != nil {
		return "", &RefusedError{Reason: err.Error()}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return "", &RefusedError{Reason: err.Error()}
	}
	stamp := strconv.FormatInt(w.now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Webhook-Id", key)
	r.Header.Set("Webhook-Timestamp", stamp)
	r.Header.Set("Webhook-Signature", "v1,"+w.sign(key, stamp, body))
	return call(w.client, r)
}

func (w *Webhook) sign(id, stamp string, body []byte) string {
	mac := hmac.New(sha256.New, w.secret)
	mac.Write([]byte(id + "." + stamp + "."))
	mac.Write(body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
