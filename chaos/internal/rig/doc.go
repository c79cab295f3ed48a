// Package rig has what is broken: real brokers, the links to them, worker processes and disks, and the functions that break them.
//
// Two rigs stand behind a proxy each: [Kafka] with a direct listener beside the one whose advertised
// address is the proxy, and [RabbitMQ]. What a client of the framework says goes through the proxy, where a tap sees it; what the
// checker asks never does.
package rig
