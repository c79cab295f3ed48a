// Package archtest holds the rules of this house by tests: who may import whom, what each public package links, and how long and
// deep code may be. It has no code of its own.
package archtest
