package rig

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/brokers"
)

// RabbitMQ is rig R: a node of its own, with a virtual host, behind the proxy.
type RabbitMQ struct {
	// Proxy is what consumers go through.
	Proxy *Proxy

	host   *brokers.Host
	broker brokers.OwnRabbitMQ
}

// StartRabbitMQ starts rig R. lines are further ones of rabbitmq.conf. It ends with the host.
func StartRabbitMQ(host *brokers.Host, lines ...string) (*RabbitMQ, error) {
	proxy, err := newProxy(amqpClient)
	if err != nil {
		return nil, err
	}
	r := &RabbitMQ{Proxy: proxy, host: host}
	host.Cleanup(func() {
		if err := proxy.close(); err != nil {
			host.Logf("close the proxy: %v", err)
		}
	})
	if err := host.Do(func() { r.broker = brokers.Exclusive(host).RabbitMQ(lines...) }); err != nil {
		return nil, err
	}
	direct, err := url.Parse(r.Direct())
	if err != nil {
		return nil, errors.New("the broker's URL does not parse") // the error would quote the password
	}
	return r, proxy.serve(direct.Host)
}

// Direct is the URL past the proxy: for producers, the checker and the administrator.
func (r *RabbitMQ) Direct() string { return r.broker.URL() }

// Proxied is the URL through the proxy.
func (r *RabbitMQ) Proxied() string {
	direct, err := url.Parse(r.Direct())
	if err != nil {
		return "" // it did parse when the rig started
	}
	direct.Host = r.Proxy.Addr()
	return direct.String()
}

// Version is what runs.
func (r *RabbitMQ) Version() string {
	_, version, _ := strings.Cut(r.broker.String(), " ")
	version, _, _ = strings.Cut(version, ",")
	return "RabbitMQ " + version
}

// PID is the node's process.
func (r *RabbitMQ) PID() (pid int, err error) {
	err = r.host.Do(func() { pid = r.broker.PID(r.host) })
	return pid, err
}

// Kill ends the node by SIGKILL and returns when it is gone.
func (r *RabbitMQ) Kill() error { return r.host.Do(func() { r.broker.Kill(r.host) }) }

// Stop ends the node in good order.
func (r *RabbitMQ) Stop() error { return r.host.Do(func() { r.broker.Stop(r.host) }) }

// Start starts it again and returns when it works.
func (r *RabbitMQ) Start() error { return r.host.Do(func() { r.broker.Start(r.host) }) }

// Evaluate runs an Erlang expression in the node.
func (r *RabbitMQ) Evaluate(expression string) (result string, err error) {
	err = r.host.Do(func() { result = r.broker.Evaluate(r.host, expression) })
	return result, err
}

// Channel runs do with a channel past the proxy.
func (r *RabbitMQ) Channel(do func(*amqp.Channel) error) error {
	conn, err := DialAMQP(r.Direct(), "chaos-admin")
	if err != nil {
		return err
	}
	channel, err := conn.Channel()
	if err == nil {
		err = do(channel)
	}
	return errors.Join(err, conn.Close())
}

// DialAMQP connects a client of the harness, under a name that the broker's log shows.
func DialAMQP(url, name string) (*amqp.Connection, error) {
	return amqp.DialConfig(url, amqp.Config{
		Dial: amqp.DefaultDial(10 * time.Second), Heartbeat: 10 * time.Second, Locale: "en_US",
		Properties: amqp.Table{"connection_name": name},
	})
}

// CreateQueue declares a durable queue.
func (r *RabbitMQ) CreateQueue(name string, arguments amqp.Table) error {
	return r.Channel(func(channel *amqp.Channel) error {
		_, err := channel.QueueDeclare(name, true, false, false, false, arguments)
		return err
	})
}

// DeleteQueue deletes a queue with all that is in it.
func (r *RabbitMQ) DeleteQueue(name string) error {
	return r.Channel(func(channel *amqp.Channel) error {
		_, err := channel.QueueDelete(name, false, false, false)
		return err
	})
}

// Depth is how many messages of a queue are ready, and how many are with a consumer.
func (r *RabbitMQ) Depth(queue string) (ready, unacked int, err error) {
	err = r.host.Do(func() { ready, unacked = r.broker.Depth(r.host, queue) })
	return ready, unacked, err
}

// AwaitEmpty returns when a queue has neither ready nor unacknowledged messages.
func (r *RabbitMQ) AwaitEmpty(ctx context.Context, queue string) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ready, unacked, err := r.Depth(queue)
		if err == nil && ready == 0 && unacked == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("queue %s: %d ready, %d unacknowledged: %w", queue, ready, unacked, errors.Join(context.Cause(ctx), err))
		case <-tick.C:
		}
	}
}

// CloseConnections makes the broker close every connection of the virtual host, the harness's own included.
func (r *RabbitMQ) CloseConnections() (n int, err error) {
	err = r.host.Do(func() { n = r.broker.CloseConnections(r.host) })
	return n, err
}

// Alarm sets off the memory alarm, or ends it: the broker stops reading from connections that publish.
func (r *RabbitMQ) Alarm(on bool) error {
	high := "0.4"
	if on {
		high = "0"
	}
	_, err := r.Evaluate("vm_memory_monitor:set_vm_memory_high_watermark(" + high + ")")
	return err
}

// ConsumerTimeout sets how long a delivery may stay unacknowledged, for channels that are opened from now on.
func (r *RabbitMQ) ConsumerTimeout(limit, tick time.Duration) error {
	_, err := r.Evaluate(fmt.Sprintf("application:set_env(rabbit, consumer_timeout, %d), application:set_env(rabbit, channel_tick_interval, %d)",
		limit.Milliseconds(), tick.Milliseconds()))
	return err
}

// Permissions sets what the user may configure, write and read, as regular expressions.
func (r *RabbitMQ) Permissions(configure, write, read string) error {
	vhost, user := r.broker.VHost()
	_, err := r.Evaluate(fmt.Sprintf(`rabbit_auth_backend_internal:set_permissions(<<"%s">>, <<"%s">>, <<"%s">>, <<"%s">>, <<"%s">>, <<"chaos">>)`,
		user, vhost, configure, write, read))
	return err
}

// SetPassword changes the user's password. The URLs of the rig keep the old one.
func (r *RabbitMQ) SetPassword(password string) error {
	_, user := r.broker.VHost()
	_, err := r.Evaluate(fmt.Sprintf(`rabbit_auth_backend_internal:change_password(<<"%s">>, <<"%s">>, <<"chaos">>)`, user, password))
	return err
}

// DeleteVHost deletes the virtual host with all that is in it, and CreateVHost makes it again.
func (r *RabbitMQ) DeleteVHost() error {
	vhost, _ := r.broker.VHost()
	_, err := r.Evaluate(fmt.Sprintf(`rabbit_vhost:delete(<<"%s">>, <<"chaos">>)`, vhost))
	return err
}

// CreateVHost makes the virtual host again, empty, with all permissions for the user.
func (r *RabbitMQ) CreateVHost() error {
	vhost, _ := r.broker.VHost()
	if _, err := r.Evaluate(fmt.Sprintf(`rabbit_vhost:add(<<"%s">>, <<"chaos">>)`, vhost)); err != nil {
		return err
	}
	return r.Permissions(".*", ".*", ".*")
}

// TLS is the URL of an encrypted listener past the proxy, and what trusts it.
func (r *RabbitMQ) TLS() (address string, config *tls.Config, err error) {
	err = r.host.Do(func() { address, config = r.broker.TLS(r.host) })
	return address, config, err
}

// Spoiler is a proxy of its own between workers and [RabbitMQ.Proxy], so that what its toxics do to a stream is not seen by the tap
// behind it; or, encrypted, between them and the TLS listener. address is the way through it. It ends with the host.
func (r *RabbitMQ) Spoiler(encrypted bool) (spoiler *Proxy, address string, err error) {
	address, upstream := r.Proxied(), r.Proxy.Addr()
	if encrypted {
		if address, _, err = r.TLS(); err != nil {
			return nil, "", err
		}
	}
	through, err := url.Parse(address)
	if err != nil {
		return nil, "", errors.New("the broker's URL does not parse") // the error would quote the password
	}
	if encrypted {
		upstream = through.Host
	}
	spoiler, err = newProxy(amqpClient)
	if err != nil {
		return nil, "", err
	}
	r.host.Cleanup(func() {
		if err := spoiler.close(); err != nil {
			r.host.Logf("close a proxy: %v", err)
		}
	})
	through.Host = spoiler.Addr()
	return spoiler, through.String(), spoiler.serve(upstream)
}

// Certificate is what the TLS listener shows, in PEM.
func (r *RabbitMQ) Certificate() ([]byte, error) {
	address, config, err := r.TLS()
	if err != nil {
		return nil, err
	}
	to, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the broker's URL does not parse")
	}
	conn, err := tls.Dial("tcp", to.Host, config)
	if err != nil {
		return nil, err
	}
	shown := conn.ConnectionState().PeerCertificates[0]
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: shown.Raw}), conn.Close()
}
