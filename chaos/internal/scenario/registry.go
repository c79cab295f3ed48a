package scenario

import "slices"

// All are the scenarios, in the order in which they run.
func All() []Scenario {
	return slices.Concat(processDeath())
}

// processDeath is reliability.md section 2.A.
func processDeath() []Scenario {
	return []Scenario{
		{
			ID: "A1", Severity: "S1", CI: true, Title: "SIGKILL of Kafka consumers", Run: killKafka,
			Limit: "3 processes, window 1,000 each, 20 kills with >= 100 unsettled: lost 0, commits never ahead, inversions 0, duplicates <= kills x window",
		},
		{
			ID: "A2", Severity: "S1", CI: true, Title: "SIGKILL of RabbitMQ consumers", Run: killRabbitMQ,
			Limit: "2 processes, prefetch 200, 10 kills with >= 100 unsettled: lost 0, no ack before the sink, duplicates <= kills x prefetch, all marked redelivered",
		},
	}
}

// Find is the scenario of an id.
func Find(id string) (Scenario, bool) {
	all := All()
	at := slices.IndexFunc(all, func(s Scenario) bool { return s.ID == id })
	if at < 0 {
		return Scenario{}, false
	}
	return all[at], true
}
