// Package ingest is part A: it downloads social posts that carry hashtags of
// interest, as many as are asked for and no more.
//
//	Timelines  reads the hashtag timelines of a Mastodon-compatible API and
//	           merges them: oldest first, each post once
//	Producer   is the broadway.Producer around it: the API is called only when
//	           there is demand
//	Cursor     remembers, durably, up to where posts have settled
//	Window     is A's credit when a queue stands between A and B
package ingest
