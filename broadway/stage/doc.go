// Package stage moves events between goroutines by demand: nothing is handed
// on before it was asked for.
package stage
