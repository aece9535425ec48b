// Package live reads group tables: the aircraft registry, and the windows that are still open. A table is kept in memory
// as goka's view reads it from its changelog, and is as new as the processors' last checkpoint.
package live
