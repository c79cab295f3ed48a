// Package standin is the world outside the pipeline, in process and on loopback:
// the posts API that part A reads, and two platforms that part B publishes on.
//
//	posts API    a Mastodon-compatible server: hashtag timelines with paging,
//	             rate-limited, sometimes down
//	statuses     a Mastodon-compatible status API, with Idempotency-Key
//	webhook      an HTTP endpoint that checks signatures (Standard Webhooks)
//
// They are real HTTP servers that behave like the ones they stand for, and
// misbehave by a seed: they fail before or after the effect took place, answer
// 429, and time out. Each keeps a ledger of its own of what really happened; the
// ledgers are what the audit believes.
//
// No post here was written by anybody: all are generated for this project from
// corpus.json, by a seed, and no address in them exists (RFC 2606).
package standin
