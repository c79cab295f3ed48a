package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// The limits of a server: a client that is slow, or sends much, is cut off.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 16 << 10
	shutdownTimeout   = 5 * time.Second
)

// ServeOption changes what Serve does.
type ServeOption func(*serving)

type serving struct {
	remote   bool
	hosts    []string
	onListen func(net.Addr)
}

// AllowRemote lets Serve listen on an address that other machines reach. Nobody
// is asked for a password there: put what you expose behind something that does.
// hosts are the names by which clients may ask for the server; addresses and
// "localhost" always may.
func AllowRemote(hosts ...string) ServeOption {
	return func(s *serving) { s.remote, s.hosts = true, append(s.hosts, hosts...) }
}

// OnListen calls f with the address once the server listens, which is how the
// port of an address with port 0 becomes known.
func OnListen(f func(net.Addr)) ServeOption {
	return func(s *serving) { s.onListen = f }
}

// Serve answers HTTP requests on addr ("127.0.0.1:9464") with handler until ctx
// ends, then lets running requests finish for up to 5 s, and returns nil.
// Nothing that it started is left when it returns. Another error says that it
// could not listen, or no longer.
//
// An address that is not loopback is refused without [AllowRemote], and so is
// one without a host, which means all addresses. Requests for a host name that
// is neither "localhost" nor allowed are refused: a web page whose name was made
// to point here (DNS rebinding) reads nothing.
func Serve(ctx context.Context, addr string, handler http.Handler, opts ...ServeOption) error {
	var s serving
	for _, opt := range opts {
		opt(&s)
	}
	if err := s.check(addr); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	if err := s.checkBound(listener.Addr()); err != nil {
		return errors.Join(err, listener.Close())
	}
	if s.onListen != nil {
		s.onListen(listener.Addr())
	}
	return s.run(ctx, listener, handler)
}

// check refuses addresses before anything listens on them.
func (s *serving) check(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("metrics: address %q: want host:port, such as 127.0.0.1:9464", addr)
	}
	if s.remote || host == "localhost" {
		return nil
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsLoopback() {
		return nil
	}
	return notLoopback(addr)
}

// checkBound refuses a "localhost" that resolved to something else.
func (s *serving) checkBound(addr net.Addr) error {
	tcp, ok := addr.(*net.TCPAddr)
	if s.remote || ok && tcp.IP.IsLoopback() {
		return nil
	}
	return notLoopback(addr.String())
}

func notLoopback(addr string) error {
	return fmt.Errorf("metrics: address %q is not loopback: other machines could read it; use 127.0.0.1, or the option AllowRemote", addr)
}

// run serves until ctx ends or the listener fails. Everything that it starts
// has ended when it returns: the accept loop by wg, the goroutine of each
// connection by connections.
func (s *serving) run(ctx context.Context, listener net.Listener, handler http.Handler) error {
	var wg, connections sync.WaitGroup
	server := &http.Server{
		Handler:           s.guardHost(handler),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		// StateNew is told by the accept loop, so none comes after wg.Wait.
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				connections.Add(1)
			case http.StateClosed, http.StateHijacked:
				connections.Done()
			}
		},
	}
	failed := make(chan error, 1)
	wg.Go(func() { failed <- server.Serve(listener) })

	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("metrics: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if server.Shutdown(grace) != nil { // the grace is over: cut what still runs
		err = errors.Join(err, server.Close())
	}
	wg.Wait()
	connections.Wait()
	return err
}

// guardHost answers only requests for hosts that are this one's.
func (s *serving) guardHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.ours(r.Host) {
			http.Error(w, "this server is not known by that host name", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ours says whether a client may ask for host. An address is always right: what
// rebinding needs is a name. HTTP/1.0 clients may send none; browsers never do.
func (s *serving) ours(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "" || host == "localhost" {
		return true
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return slices.ContainsFunc(s.hosts, func(h string) bool { return strings.EqualFold(h, host) })
}
