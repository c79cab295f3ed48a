package standin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// Config describes a world. Zero values mean the defaults that are stated.
type Config struct {
	// Seed decides about posts, faults and latencies.
	Seed uint64
	// Posts is how many distinct posts there are. Default CorpusSize.
	Posts int
	// Ledger is the file that the ledger is kept in. Default: memory only.
	Ledger string
	// Faults default to none.
	Faults Faults
	// Latency of the platforms defaults to none.
	Latency Latency
	// Rate of the posts API defaults to Mastodon's 300 calls in 5 minutes.
	Rate Rate
}

// World is the posts API and the platforms, listening on loopback.
type World struct {
	ledger  *Ledger
	token   string
	secret  string
	servers []*server
}

type server struct {
	listener net.Listener
	handler  http.Handler
}

// Listen generates the corpus, opens the ledger, and listens on free ports of
// 127.0.0.1. Nothing is answered before Serve runs.
func Listen(cfg Config) (*World, error) {
	if cfg.Posts == 0 {
		cfg.Posts = CorpusSize
	}
	if cfg.Rate.Calls == 0 {
		cfg.Rate = Rate{Calls: 300, Window: 5 * time.Minute}
	}
	c, err := newCorpus(cfg.Seed, cfg.Posts)
	if err != nil {
		return nil, err
	}
	ledger, err := OpenLedger(cfg.Ledger)
	if err != nil {
		return nil, err
	}
	w := &World{ledger: ledger, token: rand.Text(), secret: rand.Text()}
	for _, h := range w.handlers(cfg, c) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, errors.Join(fmt.Errorf("standin: %w", err), w.Close())
		}
		w.servers = append(w.servers, &server{listener: l, handler: h})
	}
	return w, nil
}

func (w *World) handlers(cfg Config, c *corpus) []http.Handler {
	d := dice{seed: cfg.Seed, faults: cfg.Faults, latency: cfg.Latency}
	posts, toots, hooks := http.NewServeMux(), http.NewServeMux(), http.NewServeMux()
	posts.Handle("GET /api/v1/timelines/tag/{hashtag}", &timelines{
		corpus: c, ledger: w.ledger, limit: &rateLimit{rate: cfg.Rate}, dice: d,
	})
	toots.Handle("POST /api/v1/statuses", newStatuses(newPlatform(PlatformStatuses, w.ledger, d), c, w.token))
	hooks.Handle("POST /hooks/news", &webhook{
		platform: newPlatform(PlatformWebhook, w.ledger, d), corpus: c, secret: []byte(w.secret), now: time.Now,
	})
	return []http.Handler{posts, toots, hooks}
}

// PostsURL is where the posts API answers.
func (w *World) PostsURL() string { return "http://" + w.servers[0].listener.Addr().String() }

// StatusesURL is where the status platform answers.
func (w *World) StatusesURL() string { return "http://" + w.servers[1].listener.Addr().String() }

// Token is the status platform's access token, new for each world.
func (w *World) Token() string { return w.token }

// WebhookURL is where the webhook answers.
func (w *World) WebhookURL() string {
	return "http://" + w.servers[2].listener.Addr().String() + "/hooks/news"
}

// WebhookSecret is the webhook's signing secret, new for each world.
func (w *World) WebhookSecret() string { return w.secret }

// Addresses lists host:port of every server.
func (w *World) Addresses() []string {
	var list []string
	for _, s := range w.servers {
		list = append(list, s.listener.Addr().String())
	}
	return list
}

// Ledger is what really happened.
func (w *World) Ledger() *Ledger { return w.ledger }

// Serve answers until ctx ends; then it closes everything, hanging calls
// included. It may be called once.
func (w *World) Serve(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, len(w.servers))
	for i, s := range w.servers {
		srv := &http.Server{
			Handler: s.handler, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10,
			BaseContext: func(net.Listener) context.Context { return ctx },
			ErrorLog:    log.New(io.Discard, "", 0),
		}
		wg.Go(func() {
			if err := srv.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
				errs[i] = err
			}
		})
		wg.Go(func() {
			<-ctx.Done()
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			if srv.Shutdown(end) != nil {
				_ = srv.Close() // some call is stuck: cut it
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, w.ledger.Close())...)
}

// Close releases what Listen opened, for a world that is never served.
func (w *World) Close() error {
	errs := []error{w.ledger.Close()}
	for _, s := range w.servers {
		errs = append(errs, s.listener.Close())
	}
	return errors.Join(errs...)
}
