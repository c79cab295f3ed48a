//go:build unix

package brokers

import (
	"path/filepath"
	"strings"
	"testing"
)

// scripts/test runs this first, so that a download does not count against the time limit of whatever test comes first.
func TestTheJarsOfKafkaAreThere(t *testing.T) {
	skipShort(t)
	_, launcher := openKafka(t)
	for _, jar := range filepath.SplitList(launcher.classpath) {
		if strings.HasSuffix(jar, "kafka_2.13-"+KafkaVersion+".jar") {
			return
		}
	}
	t.Errorf("no server in the class path %s", launcher.classpath)
}
