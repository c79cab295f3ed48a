// Package publish is the second half of part B: it publishes an article on
// several platforms, each in its own format, whatever they do.
//
//	site      files for a browser: HTML, with PDF, Markdown, text and activity
//	mastodon  a Mastodon-compatible status API: plain text of 500 characters
//	webhook   an HTTP endpoint: Markdown, signed
//
// A call that fails is made again, with backoff, under a time limit; a platform
// that keeps failing is left alone for a while; a post that a platform does not
// want is given up. Whatever the outcome, it is remembered: neither a retry nor
// a restart publishes again where it succeeded. Where it is not known whether a
// call had its effect, the same idempotency key goes with the next one.
package publish
