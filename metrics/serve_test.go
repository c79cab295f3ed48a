package metrics_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/metrics"
)

func TestHandlerServesItsPagesToReadersOnly(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{})
	p := busy()
	require.NoError(t, m.Watch(p))
	handler := metrics.Handler(registry, p)
	for _, c := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/metrics", 200, `broadway_up{pipeline="orders"} 1`},
		{"GET", "/healthz", 200, `"alive": true`},
		{"GET", "/readyz", 200, `"ready": true`},
		{"HEAD", "/metrics", 200, ""},
		{"POST", "/metrics", 405, ""},
		{"DELETE", "/readyz", 405, ""},
		{"PUT", "/nowhere", 405, ""},
		{"OPTIONS", "/healthz", 405, ""},
		{"GET", "/", 404, ""},
		{"GET", "/debug/pprof/", 404, ""},
		{"GET", "/debug/vars", 404, ""},
		{"GET", "/metrics/more", 404, ""},
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		require.Equal(t, c.status, w.Code, "%s %s", c.method, c.path)
		require.Contains(t, w.Body.String(), c.body, "%s %s", c.method, c.path)
		require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
	}
}

func TestReadyzSaysWhyNot(t *testing.T) {
	well, ill := busy(), busy()
	ill.stats.Name = "ill"
	ill.stats.State = broadway.StateConnecting
	ill.stats.WaitingFor = "messages from topic"
	ill.stats.Producers[0].Connected = false
	ill.stats.Producers[0].Err = errors.New("dial tcp 127.0.0.1:1: connection refused")
	ill.stats.Err = errors.Join(fmt.Errorf("producer topic: %w", ill.stats.Producers[0].Err), errors.New("no progress"))

	w := httptest.NewRecorder()
	metrics.Handler(prometheus.NewRegistry(), well, ill).ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, "application/json; charset=utf-8", w.Header().Get("Content-Type"))
	require.JSONEq(t, `{"ready": false, "pipelines": [
		{"name": "orders", "state": "running", "ready": true},
		{"name": "ill", "state": "connecting", "ready": false, "waiting_for": "messages from topic", "reasons": [
			"the pipeline is connecting", "producer topic: not connected",
			"producer topic: dial tcp 127.0.0.1:1: connection refused", "no progress"]}]}`, w.Body.String())
}

// serve runs Serve on a free port until stop is called, which returns its error.
func serve(t *testing.T, handler http.Handler, opts ...metrics.ServeOption) (address string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	bound := make(chan net.Addr, 1)
	done := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		done <- metrics.Serve(ctx, "127.0.0.1:0", handler, append(opts, metrics.OnListen(func(a net.Addr) { bound <- a }))...)
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	select {
	case a := <-bound:
		return a.String(), func() error { cancel(); return <-done }
	case err := <-done:
		require.NoError(t, err)
		return "", nil
	}
}

func TestServeAnswersUntilItsContextEnds(t *testing.T) {
	address, stop := serve(t, metrics.Handler(prometheus.NewRegistry(), busy()))
	client := &http.Client{Transport: &http.Transport{}}
	response, err := client.Get("http://" + address + "/readyz")
	require.NoError(t, err)
	var body struct{ Ready bool }
	require.NoError(t, json.NewDecoder(response.Body).Decode(&body))
	require.NoError(t, response.Body.Close())
	require.True(t, body.Ready)

	require.NoError(t, stop(), "the idle connection of the client does not keep it")
	_, err = client.Get("http://" + address + "/readyz")
	require.Error(t, err)
	client.CloseIdleConnections()
}

func TestServeLetsRunningRequestsFinish(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	address, stop := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-leave
		_, _ = io.WriteString(w, "finished")
	}))
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		response, err := client.Get("http://" + address)
		if err != nil {
			t.Errorf("the request was cut: %v", err)
			return
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || string(body) != "finished" {
			t.Errorf("got %q, %v", body, err)
		}
		_ = response.Body.Close()
	})
	<-entered
	stopped := make(chan error, 1)
	wg.Go(func() { stopped <- stop() })
	close(leave)
	require.NoError(t, <-stopped)
}

func TestServeRefusesAddressesThatOthersReach(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what is accepted ends at once
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.com:80", "127.0.0.1.example.com:80", "nonsense"} {
		err := metrics.Serve(ctx, address, http.NotFoundHandler())
		require.ErrorContains(t, err, "metrics: address", address)
	}
	require.ErrorContains(t, metrics.Serve(ctx, "0.0.0.0:0", http.NotFoundHandler()), "AllowRemote", "it says what to do")
}

func TestServeOnAllAddressesNeedsTheOption(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var bound net.Addr
	err := metrics.Serve(ctx, "0.0.0.0:0", http.NotFoundHandler(), metrics.AllowRemote(), metrics.OnListen(func(a net.Addr) { bound = a; cancel() }))
	require.NoError(t, err)
	require.NotNil(t, bound)
}

func TestServeRefusesForeignHostNames(t *testing.T) {
	address, _ := serve(t, metrics.Handler(prometheus.NewRegistry(), busy()), metrics.AllowRemote("metrics.example.com"))
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	for host, status := range map[string]int{
		"localhost:" + port:     200,
		"LOCALHOST":             200,
		"127.0.0.1:" + port:     200,
		"[::1]:" + port:         200,
		"[::1]":                 200,
		"metrics.example.com":   200,
		"Metrics.Example.com.":  200,
		"evil.example:" + port:  421,
		"evil.example":          421,
		"localhost.evil.com":    421,
		"127.0.0.1.evil.com":    421,
		"x.metrics.example.com": 421,
	} {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		_, err = io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		require.NoError(t, err)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.Equal(t, status, response.StatusCode, host)
		require.NoError(t, response.Body.Close())
		require.NoError(t, conn.Close())
	}
}

func TestServeRefusesLongHeaders(t *testing.T) {
	address, _ := serve(t, metrics.Handler(prometheus.NewRegistry(), busy()))
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	_, err = io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 64<<10))
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, response.StatusCode)
}

// pipes is a listener whose connections live in memory, so that time can be
// virtual.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	end   chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.end:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.end) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func TestServeCutsClientsThatSendSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		listener := &pipes{conns: make(chan net.Conn), end: make(chan struct{})}
		done := make(chan error, 1)
		go func() { done <- metrics.ServeOn(ctx, listener, http.NotFoundHandler()) }()

		client, server := net.Pipe()
		listener.conns <- server
		start := time.Now()
		_, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: lo")
		require.NoError(t, err)
		_, err = io.ReadAll(client)
		require.NoError(t, err)
		require.Equal(t, 5*time.Second, time.Since(start))
		require.NoError(t, client.Close())

		cancel()
		require.NoError(t, <-done)
	})
}

func TestServeCutsHandlersThatOutlastTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		listener := &pipes{conns: make(chan net.Conn), end: make(chan struct{})}
		done := make(chan error, 1)
		returned := false
		go func() {
			done <- metrics.ServeOn(ctx, listener, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				<-r.Context().Done() // until the connection is cut
				time.Sleep(time.Second)
				returned = true
			}))
		}()
		client, server := net.Pipe()
		listener.conns <- server
		_, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		require.NoError(t, err)
		synctest.Wait()

		start := time.Now()
		cancel()
		require.NoError(t, <-done)
		require.Equal(t, 6*time.Second, time.Since(start))
		require.True(t, returned, "nothing is left when Serve returns")
		require.NoError(t, client.Close())
	})
}

func TestServeSaysThatItCannotListen(t *testing.T) {
	address, _ := serve(t, http.NotFoundHandler())
	require.ErrorContains(t, metrics.Serve(t.Context(), address, http.NotFoundHandler()), "metrics: listen")
}
