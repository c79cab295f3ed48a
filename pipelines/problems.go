package pipelines

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxProblems bounds an Error; what is beyond it is counted.
const maxProblems = 100

// Problem is one mistake in a file.
type Problem struct {
	// File is the name that Load or Parse was given.
	File string
	// Line and Column say where, from 1. Line 0 concerns the file as a whole.
	Line, Column int
	// Key is the path of the key: "processor.concurrency",
	// "producers[0].kafka.brokers". Empty for the whole file.
	Key string
	// Message says what is wrong and, where that helps, what to write instead.
	// It never has the value of a secret.
	Message string
}

// String is the problem as compilers print theirs: "file:line:column: key:
// message".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	if p.Key != "" {
		b.WriteString(": " + p.Key)
	}
	b.WriteString(": " + p.Message)
	return b.String()
}

// Error is everything that is wrong with a file. A syntax error stands alone,
// because nothing that follows it can be trusted.
type Error struct {
	// Problems are in the order of their lines, at most 100.
	Problems []Problem
	// More is how many further ones there are.
	More int
}

// Error is one line for each problem.
func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Problems)+1)
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	if e.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", e.More))
	}
	return strings.Join(lines, "\n")
}

// sortProblems puts problems in the order of a reader's eye and drops those
// that are said twice.
func sortProblems(problems []Problem) []Problem {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.Compact(problems)
}
