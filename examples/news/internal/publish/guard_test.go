package publish_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gobroadway/gobroadway/examples/news/internal/publish"
)

func TestTheClientReachesNoInternalAddress(t *testing.T) {
	c := publish.NewClient("127.0.0.1:1") // an exception is one address and port
	t.Cleanup(c.CloseIdleConnections)
	for _, host := range []string{
		"127.0.0.1:2", "127.1.2.3", "localhost:2", "[::1]:2", "[::ffff:127.0.0.1]:2", "0.0.0.0:2", "[::]:2",
		"10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "[fe80::1]", "[fd00::1]", "[fec0::1]",
		"100.64.0.1", "192.0.0.1", "198.18.0.1", "224.0.0.1", "[ff02::1]", "240.0.0.1", "255.255.255.255",
		"[64:ff9b::7f00:1]", "[2002:7f00:1::1]", "[2001::1]", "192.0.2.1", "2130706433:2", "0x7f000001:2",
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(r)
		if err == nil {
			t.Errorf("%s answered %s", host, resp.Status)
			continue
		}
		if !errors.Is(err, publish.ErrForbidden) && !strings.Contains(err.Error(), "no such host") && !strings.Contains(err.Error(), "lookup") {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestTheClientFollowsNoRedirect(t *testing.T) {
	hit := false
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hit = true }))
	t.Cleanup(inside.Close)
	outside := httptest.NewServer(http.RedirectHandler(inside.URL, http.StatusTemporaryRedirect))
	t.Cleanup(outside.Close)
	c := publish.NewClient(outside.Listener.Addr().String(), inside.Listener.Addr().String())
	t.Cleanup(c.CloseIdleConnections)
	a, err := renderer(t).Render(onePost())
	if err != nil {
		t.Fatal(err)
	}
	var refused *publish.RefusedError
	if _, err := publish.NewWebhook(outside.URL, "s", c).Publish(t.Context(), a, "k"); !errors.As(err, &refused) || hit {
		t.Errorf("%v, followed: %t", err, hit)
	}
}

func TestAnswersAreUnderstood(t *testing.T) {
	a, err := renderer(t).Render(onePost())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		status int
		body   string
		remote string
		no     string // "", "busy" or "refused"
	}{
		{200, `{"id":"7"}`, "7", ""},
		{202, `thanks`, "", ""},
		{204, ``, "", ""},
		{200, strings.Repeat("x", 1<<20), "", ""},
		{400, `{"error":"bad\u0000 \n thing"}`, "", "refused"},
		{401, ``, "", "refused"},
		{404, `<html>`, "", "refused"},
		{408, ``, "", "busy"},
		{429, ``, "", "busy"},
		{500, strings.Repeat("y", 1<<20), "", "busy"},
		{503, `{"error":"down"}`, "", "busy"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		}))
		client := publish.NewClient(server.Listener.Addr().String())
		remote, err := publish.NewWebhook(server.URL, "s", client).Publish(t.Context(), a, "k")
		var busy *publish.BusyError
		var refused *publish.RefusedError
		no := ""
		switch {
		case errors.As(err, &busy):
			no = "busy"
		case errors.As(err, &refused):
			no = "refused"
		case err != nil:
			no = err.Error()
		}
		if remote != c.remote || no != c.no || (err != nil && len(err.Error()) > 300) {
			t.Errorf("%d %.20q: %q, %v", c.status, c.body, remote, err)
		}
		client.CloseIdleConnections()
		server.Close()
	}
}
