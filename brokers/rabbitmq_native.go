package brokers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const rabbitInstall = "install RabbitMQ 3.10 or newer (Debian: apt-get install rabbitmq-server; its service need not run), " +
	"or set BROADWAY_RABBITMQ=amqp://user:password@host:port/ to one that runs already, or run the tests with -short"

// rabbitLauncher runs one RabbitMQ node of the machine's installation, with its own name, cookie, ports and directories.
type rabbitLauncher struct {
	server, ctl, epmd string // the programs
	version           string
	// exclusive instances are not joined by others; lines are added to rabbitmq.conf.
	exclusive bool
	lines     []string
}

// findRabbit finds the programs. Debian's /usr/sbin/rabbitmq-server is a wrapper that insists on root and on the service's own
// directories: the scripts behind it run as anybody.
func findRabbit() (rabbitLauncher, error) {
	var l rabbitLauncher
	dirs := []string{"/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin"}
	if onPath, err := exec.LookPath("rabbitmq-server"); err == nil {
		dirs = append(dirs, filepath.Dir(onPath))
	}
	for _, dir := range dirs {
		server, ctl := filepath.Join(dir, "rabbitmq-server"), filepath.Join(dir, "rabbitmqctl")
		_, errServer := os.Stat(server)
		_, errCtl := os.Stat(ctl)
		if errServer == nil && errCtl == nil {
			l.server, l.ctl = server, ctl
			break
		}
	}
	epmd, err := exec.LookPath("epmd")
	if l.server == "" || err != nil {
		return l, fmt.Errorf("no rabbitmq-server with its epmd found: %s", rabbitInstall)
	}
	l.epmd = epmd
	l.version = "RabbitMQ"
	if real, err := filepath.EvalSymlinks(l.server); err == nil {
		if _, version, found := strings.Cut(filepath.Base(filepath.Dir(filepath.Dir(real))), "rabbitmq_server-"); found {
			l.version = version
		}
	}
	return l, nil
}

func (l rabbitLauncher) kind() string { return "rabbitmq" }

func (l rabbitLauncher) key() string {
	if l.exclusive {
		return exclusiveKey
	}
	return "rabbitmq-" + l.server + "-" + l.version + "-1"
}

func (l rabbitLauncher) prepare(dir string) (state, error) {
	ports, err := namedPorts("amqp", "amqps", "dist", "epmd")
	if err != nil {
		return state{}, err
	}
	s := state{
		Key: l.key(), Ports: ports, Node: "broadway-" + randomHex(4) + "@localhost", User: "broadway", Password: randomHex(12),
	}
	if _, err := writeCertificates(dir); err != nil {
		return state{}, err
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "rabbitmq.conf"), []byte(l.config(dir, s)), 0o600),
		os.WriteFile(filepath.Join(dir, "enabled_plugins"), []byte("[].\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "env.conf"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, ".erlang.cookie"), []byte(randomHex(10)), 0o400),
	)
	return s, err
}

func (l rabbitLauncher) config(dir string, s state) string {
	lines := []string{
		"listeners.tcp.1 = " + s.addr("amqp"),
		"listeners.ssl.1 = " + s.addr("amqps"),
		"ssl_options.cacertfile = " + filepath.Join(dir, certificatePEM),
		"ssl_options.certfile = " + filepath.Join(dir, certificatePEM),
		"ssl_options.keyfile = " + filepath.Join(dir, keyPEM),
		"ssl_options.verify = verify_none",
		"default_user = " + s.User,
		"default_pass = " + s.Password,
		"log.file = false",
		"log.console = true",
		"log.console.level = info",
		"disk_free_limit.absolute = 50MB",
	}
	return strings.Join(append(lines, l.lines...), "\n") + "\n"
}

// environ is what the node and its tools run with.
func (l rabbitLauncher) environ(dir string, s state) []string {
	in := func(name string) string { return filepath.Join(dir, name) }
	return []string{
		"HOME=" + dir, // the cookie is read from there
		"ERL_EPMD_PORT=" + strconv.Itoa(s.Ports["epmd"]),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME=" + s.Node,
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		"RABBITMQ_NODE_PORT=" + strconv.Itoa(s.Ports["amqp"]),
		"RABBITMQ_DIST_PORT=" + strconv.Itoa(s.Ports["dist"]),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
		"RABBITMQ_CONF_ENV_FILE=" + in("env.conf"),
		"RABBITMQ_CONFIG_FILE=" + in("rabbitmq"),
		"RABBITMQ_ADVANCED_CONFIG_FILE=" + in("advanced.config"), // there is none, the machine's is not to be used
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + in("enabled_plugins"),
		"RABBITMQ_MNESIA_BASE=" + in("data"),
		"RABBITMQ_LOG_BASE=" + in("log"),
		"RABBITMQ_LOGS=-",
		"RABBITMQ_PID_FILE=" + in("rabbitmq.pid"),
		"RABBITMQ_GENERATED_CONFIG_DIR=" + in("config"),
		"RABBITMQ_SCHEMA_DIR=" + in("schema"),
		"RUNNING_UNDER_SYSTEMD=true", // makes the script become the node instead of being its parent
		"NOTIFY_SOCKET=",
	}
}

// command starts the name server of the node first, in the foreground: a node that finds none starts one that outlives it.
func (l rabbitLauncher) command(dir string, s state) (argv, env []string) {
	port := strconv.Itoa(s.Ports["epmd"])
	epmd := shellQuote([]string{l.epmd, "-port", port})
	script := epmd + " -address 127.0.0.1 & echo $! >helpers\n" +
		"until " + epmd + " -names >/dev/null 2>&1; do kill -0 $! || exit; sleep 0.1; done\n" +
		"exec " + shellQuote([]string{l.server})
	return []string{"sh", "-c", script}, l.environ(dir, s)
}

func (l rabbitLauncher) probe(ctx context.Context, dir string, s state) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := dialOnce(ctx, s.addr("amqp")); err != nil {
		return err
	}
	answer, err := l.evaluate(ctx, dir, s, readyExpression)
	if err == nil && answer != "true" {
		err = fmt.Errorf("not ready: %s", answer)
	}
	return err
}

// readyExpression is true once the node has booted and its quorum queues, after a restart, have their leaders again. Listeners
// open before that, and a message that is published to a queue without a leader is neither confirmed nor refused.
const readyExpression = `rabbit:is_running() andalso lists:all(fun(Q) ->
  amqqueue:get_type(Q) =/= rabbit_quorum_queue orelse
    element(1, ra:leader_query(amqqueue:get_pid(Q), fun(_) -> ok end)) =:= ok
end, rabbit_amqqueue:list())`

// flush writes the disk tables in which the node keeps which quorum queues it has.
func (l rabbitLauncher) flush(ctx context.Context, dir string, s state) error {
	_, err := l.evaluate(ctx, dir, s, "[ok = dets:sync(T) || T <- dets:all()]")
	return err
}

// amqpURL is the URL of one of the node's virtual hosts.
func (s state) amqpURL(addr, vhost string) string {
	return fmt.Sprintf("amqp://%s:%s@%s/%s", s.User, s.Password, addr, strings.TrimPrefix(vhost, "/"))
}

// dialAMQP connects with time limits of its own: the client's default for the handshake is 30 s.
func dialAMQP(url string) (*amqp.Connection, error) {
	return amqp.DialConfig(url, amqp.Config{Dial: amqp.DefaultDial(10 * time.Second), Heartbeat: 10 * time.Second, Locale: "en_US"})
}

// evaluate runs an Erlang expression in the node and returns what it gives, as Erlang prints it. erl_call does that in
// milliseconds; where it is not installed, rabbitmqctl takes a second.
func (l rabbitLauncher) evaluate(ctx context.Context, dir string, s state, expression string) (string, error) {
	var cmd *exec.Cmd
	if call, err := exec.LookPath("erl_call"); err == nil {
		cmd = exec.CommandContext(ctx, call, "-h", "call"+randomHex(6), "-e", "-address", s.addr("dist")) // its own random names repeat
		cmd.Stdin = strings.NewReader(expression + ".\n")
	} else {
		cmd = exec.CommandContext(ctx, l.ctl, "--silent", "--node", s.Node, "eval", expression+".")
	}
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), l.environ(dir, s)...)
	cmd.WaitDelay = time.Second
	text, err := cmd.CombinedOutput()
	result := string(bytes.TrimSpace(text))
	if inner, ok := strings.CutPrefix(result, "{ok, "); ok {
		result = strings.TrimSuffix(inner, "}")
	}
	if strings.HasPrefix(result, "{error") || strings.HasPrefix(result, "{'EXIT'") {
		err = errors.Join(err, errors.New("it fails"))
	}
	if err != nil {
		return "", fmt.Errorf("rabbitmq does not evaluate %q: %w: %s", expression, err, result)
	}
	return result, nil
}
