// Package grace keeps deleted mail for a while, as the queue files that it was, in
// a folder of root's alone with a directory for each day.
package grace
