// Package metrics tells Prometheus what pipelines do.
//
//	m, err := metrics.New(prometheus.DefaultRegisterer, metrics.Options{})
//	cfg.Observer = m.Observer()                 // counters and histograms
//	p, err := broadway.New(cfg)
//	err = m.Watch(p)                            // gauges, read at each scrape
//	err = metrics.Serve(ctx, "127.0.0.1:9464",  // /metrics, /healthz, /readyz
//		metrics.Handler(prometheus.DefaultGatherer, p))
//
// All names begin with the namespace, "broadway" unless told otherwise, and all
// series carry the label "pipeline".
//
// Counters, told by the pipelines as they work:
//
//	fetched_messages_total{producer}          fetched_bytes_total{producer}
//	fetch_errors_total{producer}              handled_messages_total{result}
//	reported_messages_total{batcher,result}   batches_total{batcher,trigger}
//	settled_messages_total{outcome}           settle_errors_total
//	retries_total{stage}
//
// Histograms, with classic buckets for the text format and native ones for
// servers that scrape protobuf:
//
//	handle_duration_seconds                   report_duration_seconds{batcher}
//	batch_messages{batcher}
//
// Gauges, read from Stats at each scrape:
//
//	up                                        state{state}
//	unsettled_messages                        unsettled_bytes
//	unsettled_messages_highest                unsettled_bytes_highest
//	unsettled_messages_bound                  unsettled_bytes_bound
//	oldest_unsettled_seconds                  overdue_messages
//	parked_messages
//	queue_messages{stage,name}                queue_messages_bound{stage,name}
//	queue_messages_highest{stage,name}        batches{batcher,phase}
//	workers{stage,name}                       workers_busy{stage,name}
//	stuck_handlers{stage,name}                circuit_state{stage,name,state}
//	circuit_held_messages
//	producer_connected{producer}              producer_healthy{producer}
//	tls_insecure{producer}
//	producer_demand_messages{producer}        producer_last_fetch_timestamp_seconds{producer}
//	lag_messages{producer,source,partition}
//
// Counters of sources that are logs, read from Stats too:
//
//	skipped_offsets_total{producer}           log_truncations_total{producer}
//
// Label values come from the configuration only, never from messages; what a
// broker can make many of, the partitions of lag_messages, is bounded by
// [Options.MaxLagSeries].
package metrics
