package publish

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxAnswer is how much of an answer is read.
const maxAnswer = 64 << 10

// call makes a request and returns the id in its answer. The request's context
// bounds it.
func call(client *http.Client, r *http.Request) (string, error) {
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if closed := resp.Body.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return "", err
	}
	if err := verdict(resp, body); err != nil {
		return "", err
	}
	var answer struct {
		ID string `json:"id"`
	}
	_ = json.Unmarshal(body, &answer) // it took the post, and may say so in words of its own
	return answer.ID, nil
}

// verdict tells a yes, a no for now, and a no for good apart.
func verdict(resp *http.Response, body []byte) error {
	code := resp.StatusCode
	switch {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		return &BusyError{Status: code, Reason: reason(body), After: retryAfter(resp.Header, time.Now())}
	case code >= 300 && code < 400:
		return &RefusedError{Status: code, Reason: "redirects are not followed"}
	}
	return &RefusedError{Status: code, Reason: reason(body)}
}

// reason is what an answer says, on one short line.
func reason(body []byte) string {
	var answer struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Error == "" {
		answer.Error = string(body)
	}
	return fmt.Sprintf("%.200s", strings.Join(strings.Fields(strings.ToValidUTF8(answer.Error, "")), " "))
}

// retryAfter reads the header of that name: seconds, or a date (RFC 9110).
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil {
		return time.Duration(max(seconds, 0)) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
