package brokers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// KafkaVersion is the version of Apache Kafka that a native start runs.
const KafkaVersion = "4.3.1"

const kafkaInstall = "install a JDK (17 or newer) and Maven (Debian: apt-get install default-jdk-headless maven), " +
	"or set BROADWAY_KAFKA=host:port to a Kafka that runs already, or run the tests with -short"

// kafkaLauncher runs one node of Kafka, broker and controller at once.
type kafkaLauncher struct {
	java      string
	classpath string
	// exclusive instances are not joined by others; properties are added to the broker's configuration.
	exclusive  bool
	properties []string
	// advertise, when not empty, is where clients are sent instead of to the listener itself: a proxy in front of it.
	advertise string
}

// findJava returns the java that runs the broker, JAVA_HOME's first.
func findJava() (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java := filepath.Join(home, "bin", "java")
		if _, err := os.Stat(java); err == nil {
			return java, nil
		}
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return "", fmt.Errorf("no java found: %s", kafkaInstall)
	}
	return java, nil
}

func (l kafkaLauncher) kind() string { return "kafka" }

func (l kafkaLauncher) key() string {
	if l.exclusive {
		return exclusiveKey
	}
	sum := sha256.Sum256([]byte(l.java + l.classpath + kafkaProperties + kafkaLog4j + kafkaJVM))
	return "kafka-" + KafkaVersion + "-" + hex.EncodeToString(sum[:8])
}

// kafkaListeners are the listeners of an instance: for clients without and with authentication and encryption, and the node's own two.
func kafkaListeners() []string { return []string{"plain", "sasl", "tls", "internal", "controller"} }

// kafkaProperties is the configuration that every instance shares: one node, quick groups, little memory, and nothing created by
// accident.
const kafkaProperties = `process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=INTERNAL
listener.security.protocol.map=PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
listener.name.tls.ssl.keystore.type=PEM
listener.name.tls.ssl.client.auth=none
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.segment.delete.delay.ms=1000
log.retention.ms=-1
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=1
`

// kafkaLog4j logs to the standard output: what is wrong, and what becomes of consumer groups. All the rest would bury a test's own
// part of the log in the creation and deletion of topics.
const kafkaLog4j = `rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %m (%c)%n
logger.group.name=org.apache.kafka.coordinator.group
logger.group.level=info
logger.server.name=kafka.server.BrokerServer
logger.server.level=info
logger.raft.name=kafka.server.KafkaRaftServer
logger.raft.level=info
`

// kafkaJVM keeps the broker small, and compiles it quickly rather than well: a start then takes half the processor time.
const kafkaJVM = "-Xms256m -Xmx1g -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Djava.awt.headless=true"

func (l kafkaLauncher) prepare(dir string) (state, error) {
	ports, err := namedPorts(kafkaListeners()...)
	if err != nil {
		return state{}, err
	}
	s := state{Key: l.key(), Ports: ports, User: "broadway", Password: randomHex(12)}
	certificate, err := writeCertificates(dir)
	if err != nil {
		return state{}, err
	}
	config := kafkaProperties + l.own(dir, s, certificate) + strings.Join(l.properties, "\n") + "\n"
	err = os.WriteFile(filepath.Join(dir, "server.properties"), []byte(config), 0o600)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "log4j2.properties"), []byte(kafkaLog4j), 0o600)
	}
	return s, err
}

// own is the part of the configuration that differs between instances.
func (l kafkaLauncher) own(dir string, s state, certificate string) string {
	var listeners, advertised []string
	for _, name := range kafkaListeners() {
		endpoint := strings.ToUpper(name) + "://" + s.addr(name)
		listeners = append(listeners, endpoint)
		if name == "plain" && l.advertise != "" {
			endpoint = "PLAIN://" + l.advertise
		}
		if name != "controller" {
			advertised = append(advertised, endpoint)
		}
	}
	plain := fmt.Sprintf(`org.apache.kafka.common.security.plain.PlainLoginModule required user_%s="%s";`, s.User, s.Password)
	return strings.Join([]string{
		"listeners=" + strings.Join(listeners, ","),
		"advertised.listeners=" + strings.Join(advertised, ","),
		"controller.quorum.voters=1@" + s.addr("controller"),
		"log.dirs=" + filepath.Join(dir, "data"),
		"listener.name.sasl.plain.sasl.jaas.config=" + plain,
		"listener.name.tls.ssl.keystore.location=" + certificate,
		"",
	}, "\n")
}

func (l kafkaLauncher) command(dir string, s state) (argv, env []string) {
	java := append([]string{l.java}, strings.Fields(kafkaJVM)...)
	java = append(java, "-Dlog4j2.configurationFile=file://"+filepath.Join(dir, "log4j2.properties"), "-cp", l.classpath)
	properties := filepath.Join(dir, "server.properties")
	format := append(slices.Clone(java), "kafka.tools.StorageTool", "format", "--ignore-formatted",
		"--cluster-id", "YnJvYWR3YXktdGVzdHMtMQ", "--config", properties)
	for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
		format = append(format, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, s.User, s.Password))
	}
	run := append(java, "kafka.Kafka", properties)
	script := "[ -e data/meta.properties ] || " + shellQuote(format) + " || exit; exec " + shellQuote(run)
	return []string{"sh", "-c", script}, nil
}

// shellQuote makes one shell command of an argument list.
func shellQuote(argv []string) string {
	quoted := make([]string, len(argv))
	for i, arg := range argv {
		quoted[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}

func (l kafkaLauncher) probe(ctx context.Context, _ string, s state) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	addr := s.addr("internal")
	if err := dialOnce(ctx, addr); err != nil {
		return err
	}
	if err := kafkaReady(ctx, addr); err != nil {
		return err
	}
	// A broker opens one listener after another: the clients' may come last.
	for _, name := range kafkaListeners() {
		if err := dialOnce(ctx, s.addr(name)); err != nil {
			return err
		}
	}
	return nil
}

// readClasspath returns a resolved class path if it is still good.
func readClasspath(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	classpath := strings.TrimSpace(string(text))
	for _, jar := range filepath.SplitList(classpath) {
		if _, err := os.Stat(jar); err != nil {
			return "", err
		}
	}
	if classpath == "" {
		return "", errors.New("maven resolved nothing")
	}
	return classpath, nil
}

// kafkaPOM names the server and a log back end for it, which its own POM leaves to the distribution.
const kafkaPOM = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>gobroadway</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>` + KafkaVersion + `</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.4</version></dependency>
  </dependencies>
</project>
`

// resolveClasspath lets Maven fetch the jars into its own repository and write where they are.
func resolveClasspath(ctx context.Context, dir, file string) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return fmt.Errorf("no mvn found: %s", kafkaInstall)
	}
	pom := filepath.Join(dir, "pom.xml")
	if err := os.WriteFile(pom, []byte(kafkaPOM), 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, mvn, "--batch-mode", "--quiet", "--file", pom, "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath",
		"-DincludeScope=runtime", "-Dmdep.outputFile="+file)
	cmd.Dir = dir
	if home, err := os.UserHomeDir(); err == nil { // Java takes the home directory of the password file otherwise
		cmd.Env = append(os.Environ(), "MAVEN_OPTS="+os.Getenv("MAVEN_OPTS")+" -Duser.home="+home)
	}
	cmd.WaitDelay = 5 * time.Second
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mvn cannot resolve Kafka %s: %w\n%s", KafkaVersion, err, text)
	}
	return nil
}
