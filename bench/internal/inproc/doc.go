// Package inproc has the workloads that need no broker: stages alone, and whole pipelines whose source makes messages as fast as
// they are asked for.
//
// Each message is 200 bytes that are written when it is made and read by a worker. Batches of 100 reach one counter at the end, which is
// what "acknowledged" means here.
package inproc
