//go:build !klgstream_next

package codecs

// StateVersion is the version of state records this program writes, and the newest it reads. It grows when an older program
// would misread what a newer one writes; a field that an older program may skip is no new version.
const StateVersion = 1
