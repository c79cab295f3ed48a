package metrics

import (
	"fmt"
	"slices"

	"github.com/gobroadway/gobroadway/broadway"
)

// readiness is the body of /readyz.
type readiness struct {
	Ready     bool             `json:"ready"`
	Pipelines []pipelineHealth `json:"pipelines"`
}

// pipelineHealth is one pipeline in it.
type pipelineHealth struct {
	Name  string `json:"name"`
	State string `json:"state"`
	Ready bool   `json:"ready"`
	// Reasons say why the pipeline is not ready.
	Reasons []string `json:"reasons,omitempty"`
	// WaitingFor says why nothing moves, when nothing does.
	WaitingFor string `json:"waiting_for,omitempty"`
}

// ready says how pipelines are. All must be ready; without any there is nothing
// to wait for.
func ready(pipelines []Pipeline) readiness {
	r := readiness{Ready: true, Pipelines: []pipelineHealth{}}
	for _, p := range pipelines {
		s := p.Stats()
		why := reasons(s)
		r.Ready = r.Ready && len(why) == 0
		r.Pipelines = append(r.Pipelines, pipelineHealth{
			Name: pipelineName(s.Name), State: s.State.String(), Ready: len(why) == 0, Reasons: why, WaitingFor: s.WaitingFor,
		})
	}
	return r
}

// reasons are why a pipeline is not ready: it is when it runs or is paused, all
// its producers are connected and report no error, and it is healthy. Each
// reason is said once, though Stats.Err has those of the producers too.
func reasons(s broadway.Stats) []string {
	var why []string
	add := func(reason string) {
		if !slices.Contains(why, reason) {
			why = append(why, reason)
		}
	}
	if s.State != broadway.StateRunning && s.State != broadway.StatePaused {
		add("the pipeline is " + s.State.String())
	}
	for _, p := range s.Producers {
		if !p.Connected {
			add(fmt.Sprintf("producer %s: not connected", p.Name))
		}
		if p.Err != nil {
			add(fmt.Sprintf("producer %s: %v", p.Name, p.Err))
		}
	}
	for _, err := range parts(s.Err) {
		add(err.Error())
	}
	return why
}

// parts are the errors that err joins; none when it is nil.
func parts(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
