package metrics

import (
	"fmt"

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
// its producers are connected and report no error, and it is healthy.
func reasons(s broadway.Stats) []string {
	var why []string
	if s.State != broadway.StateRunning && s.State != broadway.StatePaused {
		why = append(why, "the pipeline is "+s.State.String())
	}
	if s.Err != nil {
		why = append(why, s.Err.Error())
	}
	for _, p := range s.Producers {
		if !p.Connected {
			why = append(why, fmt.Sprintf("producer %s is not connected", p.Name))
		}
		if p.Err != nil {
			why = append(why, fmt.Sprintf("producer %s: %v", p.Name, p.Err))
		}
	}
	return why
}
