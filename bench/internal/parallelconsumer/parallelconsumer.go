// Package parallelconsumer measures Confluent's Parallel Consumer, which is Java: Drain.java does the work in a process of its own.
//
// Its options are their defaults, which its documentation calls the fastest: offsets committed each five seconds without waiting, a buffer
// that adapts itself, and as many threads as handlers may run at once. Its documentation says nothing of the JVM: Modest is what was
// fastest of several, with the smallest heap that does not slow it down.
package parallelconsumer

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// Version is that of pom.xml, and of the Kafka client that it takes.
const Version = "0.5.3.3, kafka-clients 3.9.1"

// Ordering is which messages may be handled at once.
type Ordering string

// What there is; PARTITION is not measured.
const (
	Unordered Ordering = "UNORDERED"
	Key       Ordering = "KEY"
)

// JVMs: Defaults takes a quarter of the machine's memory when it likes.
const (
	Modest   = "-Xmx256m -XX:+UseParallelGC"
	Defaults = ""
)

//go:embed Drain.java
var source string

//go:embed pom.xml
var pom string

const install = "install a JDK (17 or newer) and Maven (Debian: apt-get install default-jdk-headless maven)"

const plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath"

// Built files, in a folder of their own.
const (
	folder    = "parallelconsumer"
	classpath = "classpath"
	stamp     = "Drain.java" // what was compiled; written last
)

// Setup lets Maven fetch the jars into its own repository, and compiles Drain.java.
func Setup(ctx context.Context, dir string) error {
	dir, err := filepath.Abs(filepath.Join(dir, folder))
	if err != nil {
		return err
	}
	if isBuilt(dir) {
		return nil
	}
	javac, err := tool("javac")
	if err != nil {
		return err
	}
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return fmt.Errorf("no mvn found: %s", install)
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "pom.xml"), []byte(pom), 0o644)); err != nil {
		return err
	}
	err = command(ctx, dir, mvn, "--batch-mode", "--quiet", plugin, "-DincludeScope=runtime", "-Dmdep.outputFile="+filepath.Join(dir, classpath))
	if err != nil {
		return err
	}
	jars, err := jars(dir)
	if err != nil {
		return err
	}
	compiled := filepath.Join(dir, stamp)
	if err := os.WriteFile(compiled, []byte(source), 0o644); err != nil {
		return err
	}
	if err := command(ctx, dir, javac, "--release", "17", "-cp", jars, "-d", dir, compiled); err != nil {
		return errors.Join(err, os.Remove(compiled))
	}
	return nil
}

// isBuilt says whether what is there was made of the same files.
func isBuilt(dir string) bool {
	for name, text := range map[string]string{"pom.xml": pom, stamp: source} {
		if have, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(have) != text {
			return false
		}
	}
	_, err := os.Stat(filepath.Join(dir, "Drain.class"))
	if err != nil {
		return false
	}
	_, err = jars(dir)
	return err == nil
}

// jars is the class path, if all of it is there.
func jars(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, classpath))
	if err != nil {
		return "", err
	}
	path := strings.TrimSpace(string(text))
	for _, jar := range filepath.SplitList(path) {
		if _, err := os.Stat(jar); err != nil {
			return "", err
		}
	}
	if path == "" {
		return "", errors.New("maven resolved nothing")
	}
	return path, nil
}

func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.WaitDelay = dir, 5*time.Second
	if home, err := os.UserHomeDir(); err == nil { // Java takes the home directory of the password file otherwise
		cmd.Env = append(os.Environ(), "MAVEN_OPTS="+os.Getenv("MAVEN_OPTS")+" -Duser.home="+home)
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(name), err, text)
	}
	return nil
}

// tool is one of the JDK's programs, JAVA_HOME's first.
func tool(name string) (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		path := filepath.Join(home, "bin", name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("no %s found: %s", name, install)
	}
	return path, nil
}

// Run drains the topic with so many threads in a JVM with such options, each message handled for so long, a whole number of milliseconds.
func Run(jvm string, threads int, order Ordering, sleep time.Duration) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (out measure.Output, err error) {
		dir := filepath.Join(in.Built, folder)
		java, err := tool("java")
		if err != nil {
			return out, err
		}
		path, err := jars(dir)
		if err != nil {
			return out, err
		}
		args := append(strings.Fields(jvm), "-cp", dir+string(filepath.ListSeparator)+path, "Drain",
			in.Kafka, in.Topic, in.Group, strconv.Itoa(in.Messages), strconv.Itoa(measure.Payload),
			strconv.Itoa(threads), string(order), strconv.FormatInt(sleep.Milliseconds(), 10))
		var stdout, stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, java, args...)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			return out, fmt.Errorf("java: %w\n%s", err, stderr.Bytes())
		}
		if err := json.Unmarshal(stdout.Bytes(), &out); err != nil {
			return out, fmt.Errorf("java's output %q: %w\n%s", stdout.Bytes(), err, stderr.Bytes())
		}
		return out, nil
	}
}
