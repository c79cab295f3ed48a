package standin

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// webhook serves POST /hooks/news. It asks for a signature after the Standard
// Webhooks specification (https://www.standardwebhooks.com): an HMAC-SHA256
// over id, time stamp and body. The id is the idempotency key.
type webhook struct {
	*platform
	corpus *corpus
	secret []byte
	now    func() time.Time
}

// webhookTolerance is how old a signature may be.
const webhookTolerance = 5 * time.Minute

func (h *webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	if err != nil {
		refuse(w, http.StatusRequestEntityTooLarge, "body too large")
		return
	}
	if err := h.verify(r.Header, body); err != nil {
		refuse(w, http.StatusUnauthorized, err.Error())
		return
	}
	var note struct {
		Source   string `json:"source"`
		Markdown string `json:"markdown"`
	}
	if err := json.Unmarshal(body, &note); err != nil || note.Markdown == "" {
		refuse(w, http.StatusUnprocessableEntity, "not a note")
		return
	}
	post := h.corpus.byURL[note.Source]
	h.perform(w, r, post, r.Header.Get("Webhook-Id"), func(remote string) {
		reply(w, http.StatusAccepted, map[string]string{"id": remote})
	})
}

var errSignature = errors.New("webhook: bad signature")

func (h *webhook) verify(header http.Header, body []byte) error {
	id, stamp := header.Get("Webhook-Id"), header.Get("Webhook-Timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || id == "" {
		return errSignature
	}
	if age := h.now().Sub(time.Unix(seconds, 0)); age.Abs() > webhookTolerance {
		return errSignature
	}
	mac := hmac.New(sha256.New, h.secret)
	mac.Write([]byte(id + "." + stamp + "."))
	mac.Write(body)
	want := mac.Sum(nil)
	for sig := range strings.FieldsSeq(header.Get("Webhook-Signature")) {
		version, encoded, _ := strings.Cut(sig, ",")
		got, err := base64.StdEncoding.DecodeString(encoded)
		if version == "v1" && err == nil && hmac.Equal(got, want) {
			return nil
		}
	}
	return errSignature
}
