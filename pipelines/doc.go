// Package pipelines makes pipelines from YAML files. A file says what flows
// where and how fast; what the stages do is Go, and is registered by name:
//
//	registry := pipelines.NewRegistry()
//	registry.Processor("render", render)
//	registry.Reporter("store", store)
//	list, err := pipelines.Load("orders.yaml", registry)
//
// with this orders.yaml:
//
//	producers:
//	  - memory: {payloads: [hello, goodbye]}
//	processor:
//	  handler: render
//	batchers:
//	  default:
//	    reporter: store
//
// All that a file can say, with the defaults where there are any:
//
//	name: orders                  # the file's name without its extension
//	producers:                    # each has one key, its kind
//	  - memory: {…}
//	  - kafka: {…}                # see package pipelines/kafka
//	  - rabbitmq: {…}             # see package pipelines/rabbitmq
//	processor:
//	  handler: render             # Registry.Processor
//	  concurrency: 8              # 2 x GOMAXPROCS
//	  max_demand: 10
//	  min_demand: 5               # half of max_demand
//	  timeout: 30s                # none
//	  max_stuck: 8                # concurrency; or none
//	  retry_stuck: false
//	  partition_by: user          # Registry.PartitionBy; what the producers promise
//	  unordered: false
//	batchers:                     # none
//	  default:                    # the name that messages choose it by
//	    reporter: store           # Registry.Reporter
//	    concurrency: 1
//	    size: 100
//	    bytes: 1MiB               # none
//	    timeout: 1s               # or never
//	    key_by: country           # Registry.KeyBy; none
//	    policy: weight            # Registry.Policy; none
//	    report_timeout: 30s       # none
//	    max_stuck: 1              # concurrency; or none
//	    retry_stuck: false
//	failure:
//	  max_attempts: 3
//	  backoff: {initial: 100ms, max: 10s, factor: 2, jitter: 0.2}
//	  action: dead_letter         # drop; required where there is a broker
//	  dead_letter:                # a publisher, or the name of a Registry.DeadLetterer
//	    memory: {queue: dead}
//	  dead_letter_max_bytes: 1MiB # of such: larger ones are references; the broker's
//	  dead_letter_spill: shelf    # Registry.Spill; none
//	  unavailable: is_down        # Registry.Unavailable; none
//	max_unsettled: 1000           # see broadway.Config
//	message_limits:               # larger ones go the way of failed messages
//	  payload: 16MiB              # each of these: a limit, or off
//	  key: 64KiB
//	  headers: 1000
//	  header_bytes: 64KiB
//	max_unsettled_bytes: 64MiB
//	drain_timeout: 30s
//	fail_fast: false
//	reconnect_backoff: {initial: 1s, max: 30s, factor: 2, jitter: 0.2}
//
// A file with several pipelines has them as a list below the one key pipelines.
// The source memory has either payloads, with name, partitions and
// redeliver_after, or the queue that Registry.Queue names.
//
// # Strictness
//
// Everything that is wrong with a file is reported at once, with line, column
// and key: unknown keys, keys that stand twice, values of another type, a second
// document, names that nobody registered, and what [broadway.New] finds. Only a
// syntax error stands alone. Durations need a unit, numbers are decimal, texts
// that look like numbers need quotes, and a zero is refused where it would
// quietly mean the default. Anchors, aliases and merge keys (<<) work, within
// bounds: a file has at most 256 KiB, 100,000 values with its aliases expanded,
// and 100 levels.
//
// # Secrets
//
// A secret is never in the file. Where a source has a password, the file says
// password_file or password_env: see [Secret].
package pipelines
