// Package bugs checks the checker: consumers that are broken on purpose, in the ways that real ones were, must each be flagged by
// the right counter, and consumers without a fault by none. It consists of tests.
package bugs
