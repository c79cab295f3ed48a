package scenario

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// attemptsPerMinute is how often one consumer tries to connect in a minute: at once, and after 1, 2, 4, 8 and 16 s, and perhaps once more.
const attemptsPerMinute = 7

// credentialsFail is G2.
func credentialsFail(ctx context.Context, env *Env) (*Outcome, error) {
	outcome, err := rabbitCredentials(ctx, env)
	if err != nil {
		return outcome, err
	}
	return outcome, kafkaCredentials(ctx, env, outcome)
}

// user is who the rig's URL logs in as.
func user(r *rig.RabbitMQ) (name, password string, err error) {
	parsed, err := url.Parse(r.Direct())
	if err != nil {
		return "", "", errors.New("the broker's URL does not parse") // the error would quote the password
	}
	password, _ = parsed.User.Password()
	return parsed.User.Username(), password, nil
}

// changed is the proxied URL with another password, or another virtual host.
func changed(r *rig.RabbitMQ, password, vhost string) (string, error) {
	parsed, err := url.Parse(r.Proxied())
	if err != nil {
		return "", errors.New("the broker's URL does not parse")
	}
	if password != "" {
		parsed.User = url.UserPassword(parsed.User.Username(), password)
	}
	if vhost != "" {
		parsed.Path = "/" + vhost
	}
	return parsed.String(), nil
}

// locked is a run in which workers are locked out, again and again.
type locked struct {
	*rabbitBench
	length  time.Duration
	user    string
	workers []*rig.Process
	outcome *Outcome
	lockout int
}

// out locks the workers out by deny, looks at what they say, lets them in by allow, and waits until they work.
func (l *locked) out(ctx context.Context, name string, says []string, deny, allow func() error) error {
	var before int64
	err := l.journal.during(ledger.Fault{Kind: name}, func() error {
		if err := deny(); err != nil {
			return err
		}
		dials := l.proxy.Dials()
		if err := sleep(ctx, l.length); err != nil {
			return err
		}
		dials = l.proxy.Dials() - dials
		l.outcome.Must(dials <= attemptsPerMinute*len(l.workers), "%s: %d attempts of %d workers within %v", name, dials, len(l.workers), l.length)
		for _, p := range l.workers {
			l.says(name, p, says)
		}
		before = l.handled()
		return allow()
	})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	l.lockout++
	began := time.Now()
	for _, p := range l.workers {
		held := p.Last().Handled
		err := poll(ctx, time.Minute, name+": a worker works again", func() (bool, error) { return p.Last().Handled > held, nil })
		if err != nil {
			return err
		}
	}
	l.outcome.Note("%s: first message %.1f s after repair, %d handled before", name, time.Since(began).Seconds(), before)
	return nil
}

// says looks at the reason that a worker gives for not working.
func (l *locked) says(name string, p *rig.Process, parts []string) {
	why := p.Last().Err
	select {
	case <-p.Done():
		l.outcome.Must(false, "%s: a worker ended with code %d", name, p.ExitCode())
	default:
	}
	for _, part := range append(parts, l.user) {
		l.outcome.Must(strings.Contains(why, part), "%s: the reason does not say %q: %.300q", name, part, why)
	}
}

func rabbitCredentials(ctx context.Context, env *Env) (*Outcome, error) {
	const prefetch, other = 200, "canary-99ab02"
	bench, err := newRabbitBench(env, amqp.Table{"x-queue-type": "quorum"})
	if err != nil {
		return nil, err
	}
	defer bench.abandon()
	name, right, err := user(bench.rig)
	if err != nil {
		return nil, err
	}
	length := env.For(60*time.Second, 6*time.Second)
	n := 500 * int((length/2+14*time.Second)/time.Second) // one worker may work for long before the other does
	if err := bench.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	cfg := bench.config(prefetch)
	cfg.Delay = 32 * time.Millisecond // 250 messages/s for each worker
	source := *cfg.Rabbit
	source.BackoffMax = 30 * time.Second // the default: how often it tries is counted
	cfg.Rabbit = &source
	if source.URL, err = changed(bench.rig, canary, ""); err != nil {
		return nil, err
	}
	l := &locked{rabbitBench: bench, length: length, user: name, outcome: new(Outcome)}
	err = l.all(ctx, cfg, canary, other)
	err = errors.Join(err, bench.rig.SetPassword(right), bench.rig.Permissions(".*", ".*", ".*"))
	if err != nil {
		return l.outcome, err
	}
	for _, p := range l.bench.workers {
		log, err := l.log(p)
		if err != nil {
			return nil, err
		}
		for _, secret := range []string{canary, other, right} {
			l.outcome.Must(!strings.Contains(log, secret), "%s: a password is in the log", p.Name)
		}
	}
	if err := bench.awaitDrained(ctx, 3*time.Minute); err != nil {
		return l.outcome, err
	}
	// Workers try again up to 30 s after the repair, and what one hands back goes to the queue's end.
	checked, err := bench.finish(ctx, check.Rules{Duplicates: l.lockout * len(l.workers) * prefetch, Slack: time.Minute})
	if err != nil {
		return l.outcome, err
	}
	checked.add(l.outcome)
	return checked, nil
}

// all are the ways in which RabbitMQ locks out.
func (l *locked) all(ctx context.Context, cfg worker.Config, mine, other string) error {
	refused := []string{"log in", "(403)"}
	first := func() error {
		for i := range 2 {
			p, err := l.start(fmt.Sprintf("w%d", i), cfg)
			if err != nil {
				return err
			}
			l.workers = append(l.workers, p)
		}
		return nil
	}
	return errors.Join(
		l.out(ctx, "wrong password at the start", refused, first, func() error { return l.rig.SetPassword(mine) }),
		l.out(ctx, "password changed", refused, func() error { return errors.Join(l.rig.SetPassword(other), l.cutOff()) },
			func() error { return l.rig.SetPassword(mine) }),
		l.out(ctx, "permission to read removed", []string{"ACCESS_REFUSED", l.name}, func() error { return errors.Join(l.rig.Permissions(".*", ".*", "^$"), l.cutOff()) },
			func() error { return l.rig.Permissions(".*", ".*", ".*") }),
		l.absent(ctx, cfg, mine),
	)
}

// cutOff makes the broker close what is connected, as an operator does.
func (l *locked) cutOff() error {
	n, err := l.rig.CloseConnections()
	if err == nil && n == 0 {
		return errors.New("there was no connection to close")
	}
	return err
}

// absent starts a worker for a virtual host that does not exist.
func (l *locked) absent(ctx context.Context, cfg worker.Config, password string) error {
	source := *cfg.Rabbit
	cfg.Rabbit = &source
	var err error
	if source.URL, err = changed(l.rig, password, "absent"); err != nil {
		return err
	}
	p, err := l.start("absent", cfg)
	if err != nil {
		return err
	}
	if err := sleep(ctx, l.length/2); err != nil {
		return err
	}
	l.says("no such virtual host", p, []string{"absent", "not found"})
	code, err := p.Terminate(15 * time.Second)
	l.outcome.Must(code == worker.ExitClean, "no such virtual host: exit code %d", code)
	return err
}

// kafkaCredentials starts a consumer with a wrong password, which no user has.
func kafkaCredentials(ctx context.Context, env *Env, outcome *Outcome) error {
	kafkaRig, err := env.Kafka()
	if err != nil {
		return err
	}
	proxy, name, right, err := kafkaRig.SASL()
	if err != nil {
		return err
	}
	log := new(logBuffer)
	to := target{kind: "kafka", addr: proxy.Addr(), user: name, password: canary, source: "t"}
	s, err := newSecured(to, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		return err
	}
	length := env.For(60*time.Second, 6*time.Second)
	limited, stop := context.WithTimeout(ctx, length)
	defer stop()
	var why error
	var watching sync.WaitGroup
	watching.Go(func() {
		if sleep(limited, length-time.Second) == nil {
			why = s.pipeline.Stats().Err
		}
	})
	err = s.pipeline.Run(limited)
	watching.Wait()
	if err := errors.Join(err, s.publisher.Close()); err != nil {
		return err
	}
	told := fmt.Sprint(why)
	for _, part := range []string{name, "uthenticat"} {
		outcome.Must(strings.Contains(told, part), "kafka: the reason does not say %q: %.300q", part, told)
	}
	for where, text := range map[string]string{"reason": told, "log": string(log.Bytes())} {
		outcome.Must(!strings.Contains(text, canary) && !strings.Contains(text, right), "kafka: a password is in the %s", where)
	}
	outcome.Must(proxy.Dials() <= 3*attemptsPerMinute, "kafka: %d connections within %v", proxy.Dials(), length)
	outcome.Note("kafka, wrong password at the start: %d connections within %v, %.300q", proxy.Dials(), length, told)
	return nil
}
