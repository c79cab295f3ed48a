package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
)

// corruption is D4: bits are inverted on the way from the broker. A batch of Kafka has a checksum, and TLS has one for everything. AMQP
// has none: there a handler that verifies its messages is what finds them.
func corruption(ctx context.Context, env *Env) (*Outcome, error) {
	all := new(Outcome)
	if err := all.try(ctx, env, "kafka", corruptFetches); err != nil {
		return all, fmt.Errorf("kafka: %w", err)
	}
	for _, encrypted := range []bool{true, false} {
		err := all.try(ctx, env, "rabbitmq", func(ctx context.Context, env *Env, run *either) (*Outcome, error) {
			return corruptFrames(ctx, env, run, encrypted)
		})
		if err != nil {
			return all, fmt.Errorf("rabbitmq, encrypted %v: %w", encrypted, err)
		}
	}
	return all, nil
}

// oneIn is how many bytes have one that is spoiled: 1 MiB at full size.
func oneIn(env *Env) int { return env.N(1<<20, 128<<10) }

func corruptFetches(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	const processes = 2
	n := env.N(400_000, 30_000)
	// Small batches: of a large one every copy would be corrupt.
	if err := run.produce(ctx, load.Spec{Messages: n, BatchBytes: 8 << 10}); err != nil {
		return nil, err
	}
	cfg := run.config
	kafka := *cfg.Kafka
	kafka.MaxPartitionBytes = 64 << 10 // small answers, many of them
	cfg.Kafka = &kafka
	cfg.Delay = env.For(60*time.Second, 5*time.Second) * processes * time.Duration(cfg.Concurrency) / time.Duration(n)
	// Nothing but an answer to Fetch is as large, and from here on the toxic sees whole connections.
	toxic := rig.Toxic{Type: rig.Flip, Attributes: map[string]any{"every": oneIn(env), "seed": env.Seed, "least": 4 << 10}}
	err := run.journal.during(ledger.Fault{Kind: "corrupt answers to Fetch"}, func() error {
		remove, err := run.proxy.Add(toxic)
		if err != nil {
			return err
		}
		if _, err := run.startAll(ctx, processes, cfg); err != nil {
			return err
		}
		if err := run.drained(ctx, 3*time.Minute); err != nil {
			return err
		}
		return remove()
	})
	if err != nil {
		return nil, err
	}
	corrupt, failed := run.total("corrupt"), run.total("exchanges_failed")
	outcome, err := run.finish(ctx, check.Rules{Duplicates: processes * run.bound})
	if err != nil {
		return nil, err
	}
	outcome.Must(corrupt > 0, "nothing that was corrupt was noticed")
	outcome.Note("%d messages, one byte in %d KiB of answers to Fetch: %d batches found corrupt, %d exchanges failed", n, oneIn(env)>>10, corrupt, failed)
	return outcome, run.unshaken(outcome)
}

// unshaken adds whether a worker has panicked.
func (b *bench) unshaken(outcome *Outcome) error {
	for _, p := range b.workers {
		text, err := os.ReadFile(b.logOf(p))
		if err != nil {
			return err
		}
		outcome.Must(!strings.Contains(string(text), "panic"), "%s panicked", p.Name)
	}
	return nil
}

func corruptFrames(ctx context.Context, env *Env, run *either, encrypted bool) (*Outcome, error) {
	const processes = 2
	rabbit, err := env.RabbitMQ()
	if err != nil {
		return nil, err
	}
	n := env.N(200_000, 10_000)
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	spoiler, address, err := rabbit.Spoiler(encrypted)
	if err != nil {
		return nil, err
	}
	length := env.For(60*time.Second, 8*time.Second)
	cfg := run.config
	source := *cfg.Rabbit
	source.URL, source.Heartbeat, source.BackoffMax = address, 2*time.Second, 2*time.Second
	cfg.Rabbit = &source
	cfg.Delay = length * processes * time.Duration(cfg.Concurrency) / time.Duration(n)
	if encrypted {
		certificate, err := rabbit.Certificate()
		if err != nil {
			return nil, err
		}
		source.CA = filepath.Join(run.dir, "ca.pem")
		if err := os.WriteFile(source.CA, certificate, 0o600); err != nil {
			return nil, err
		}
	} else {
		cfg.Verify, cfg.Action, cfg.MaxAttempts = true, "requeue", 1
	}
	if _, err := run.startAll(ctx, processes, cfg); err != nil {
		return nil, err
	}
	before := run.total("sessions")
	err = run.journal.during(ledger.Fault{Kind: "corrupt frames"}, func() error {
		remove, err := spoiler.Add(rig.Toxic{Type: rig.Flip, Attributes: map[string]any{"every": oneIn(env), "seed": env.Seed}})
		if err != nil {
			return err
		}
		failure := sleep(ctx, length)
		// What was lost on its way is noticed by what comes after it: of the last of a queue only by the next connection.
		spoiler.CutAll()
		return errors.Join(failure, remove())
	})
	if err != nil {
		return nil, err
	}
	if err := run.drained(ctx, 3*time.Minute); err != nil {
		return nil, err
	}
	lost, failed := run.total("sessions")-before, run.total("failed")
	// What came back from lost sessions more than once is handed back, to be tried alone, and a quorum queue puts that at its end: it
	// comes again when all else is done.
	outcome, err := run.finish(ctx, check.Rules{Duplicates: int(lost+1) * run.bound, Slack: time.Minute})
	if err != nil {
		return nil, err
	}
	name := "plain, handlers verify and requeue"
	if encrypted {
		name = "TLS"
	}
	outcome.Must(lost+failed > 0, "nothing that was corrupt was noticed")
	outcome.Note("%s: %d messages, one byte in %d KiB from the broker: %d sessions were given up, %d messages requeued", name, n, oneIn(env)>>10, lost, failed)
	return outcome, run.unshaken(outcome)
}
