package scenario

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// absentAtStart is D3: nobody listens where the broker should be, then somebody who never answers, then the broker.
func absentAtStart(ctx context.Context, env *Env) (*Outcome, error) {
	return bothAtOnce(ctx, env, absentOnce)
}

// through makes a door to the run's broker, and is the configuration that leads through it.
func (e *either) through() (*rig.Door, worker.Config, error) {
	door, err := rig.NewDoor(e.proxy.Addr())
	if err != nil {
		return nil, worker.Config{}, err
	}
	cfg := e.config
	if cfg.Kafka != nil {
		source := *cfg.Kafka
		source.Brokers = []string{door.Addr()}
		cfg.Kafka = &source
		return door, cfg, nil
	}
	source := *cfg.Rabbit
	if source.URL, err = elsewhere(source.URL, door.Addr()); err != nil {
		return nil, cfg, errors.Join(err, door.Close())
	}
	cfg.Rabbit = &source
	return door, cfg, nil
}

// elsewhere is a broker's URL with another host and port.
func elsewhere(address, host string) (string, error) {
	to, err := url.Parse(address)
	if err != nil {
		return "", errors.New("the broker's URL does not parse") // the error would quote the password
	}
	to.Host = host
	return to.String(), nil
}

func absentOnce(ctx context.Context, env *Env, run *either) (_ *Outcome, err error) {
	const n = 1000
	length := env.For(60*time.Second, 8*time.Second)
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	door, cfg, err := run.through()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, door.Close()) }()
	health, err := freeAddr()
	if err != nil {
		return nil, err
	}
	cfg.Listen = health
	p, err := run.start("w0", cfg)
	if err != nil {
		return nil, err
	}
	hasty := cfg
	hasty.FailFast, hasty.Listen = true, ""
	outcome := new(Outcome)
	absent := func(name string) error {
		if err := run.failFast(ctx, outcome, name, hasty); err != nil {
			return err
		}
		return run.unready(ctx, outcome, name, p, health, length)
	}
	if err := absent("nobody listens"); err != nil {
		return nil, err
	}
	if err := door.Listen(); err != nil {
		return nil, err
	}
	if err := absent("nobody answers"); err != nil {
		return nil, err
	}
	outcome.Must(door.Dials() >= 1, "nobody tried to connect")
	outcome.Must(float64(door.Dials()) <= 2*length.Seconds()+10, "%d connections within %v", door.Dials(), length)
	door.Open()
	opened := time.Now()
	if err := poll(ctx, 2*time.Minute, "a message", func() (bool, error) { return p.Last().Handled > 0, nil }); err != nil {
		return nil, err
	}
	first := time.Since(opened)
	healthy, ready, err := pages(ctx, health)
	if err != nil {
		return nil, err
	}
	outcome.Must(healthy == http.StatusOK && ready == http.StatusOK, "while it works: /healthz %d, /readyz %d", healthy, ready)
	if err := run.drained(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	checked, err := run.finish(ctx, check.Rules{})
	if err != nil {
		return nil, err
	}
	checked.add(outcome)
	checked.Note("%d connections while nobody answered for %v; first message %.1f s after the broker was there", door.Dials(), length, first.Seconds())
	return checked, nil
}

// failFast starts a worker that must not wait.
func (e *either) failFast(ctx context.Context, outcome *Outcome, name string, cfg worker.Config) error {
	began := time.Now()
	p, err := e.start("hasty", cfg)
	if err != nil {
		return err
	}
	limited, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	select {
	case <-p.Done():
		outcome.Must(p.ExitCode() > worker.ExitClean, "%s, FailFast: exit code %d", name, p.ExitCode())
		outcome.Note("%s, FailFast: exit code %d after %.1f s", name, p.ExitCode(), time.Since(began).Seconds())
		return nil
	case <-limited.Done():
		outcome.Must(false, "%s, FailFast: it does not end within a minute", name)
		return p.Kill()
	}
}

// unready watches a worker that waits for its broker.
func (e *either) unready(ctx context.Context, outcome *Outcome, name string, p *rig.Process, health string, length time.Duration) error {
	idle := e.idle([]*rig.Process{p})
	fault := e.journal.begin(ledger.Fault{Kind: name})
	if err := sleep(ctx, length); err != nil {
		return err
	}
	if err := e.journal.end(fault); err != nil {
		return err
	}
	_, logged, cpu := idle.over()
	select {
	case <-p.Done():
		return fmt.Errorf("%s: the worker ended with code %d", name, p.ExitCode())
	default:
	}
	healthy, ready, err := pages(ctx, health)
	if err != nil {
		return err
	}
	outcome.Must(healthy == http.StatusOK && ready == http.StatusServiceUnavailable, "%s: /healthz %d, /readyz %d", name, healthy, ready)
	outcome.Must(logged <= 1, "%s: %.1f log lines/s", name, logged)
	outcome.Must(p.Last().Err != "", "%s: no reason is given", name)
	outcome.Note("%s: %.1f log lines/s, %.0f %% of a core; %.200q", name, logged, 100*cpu, p.Last().Err)
	return nil
}

// pages are the status codes of /healthz and /readyz.
func pages(ctx context.Context, addr string) (healthy, ready int, err error) {
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	codes := [2]int{}
	for i, page := range []string{"/healthz", "/readyz"} {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+page, nil)
		if err != nil {
			return 0, 0, err
		}
		answer, err := client.Do(request)
		if err != nil {
			return 0, 0, err
		}
		codes[i] = answer.StatusCode
		if err := answer.Body.Close(); err != nil {
			return 0, 0, err
		}
	}
	return codes[0], codes[1], nil
}

// freeAddr is a loopback address where nobody listens.
func freeAddr() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
