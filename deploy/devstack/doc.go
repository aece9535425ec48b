// Package devstack is the Kafka-protocol broker that runs inside the process, and the sample of real flights fed to it.
//
// `klgstream dev` and most tests run on it, so that neither needs a server, a container or a network. It is the one
// place that knows franz-go's kfake.
//
// # What survives
//
// D1. Without a data directory everything is gone when the broker closes.
//
// D2. With a data directory an acknowledged record, committed offset or created topic survives a kill -9 of the
// process: the broker hands it to the operating system before it answers. A torn last write is cut off at the next
// start; it was never acknowledged.
//
// D3. With SyncWrites it survives a power cut as well: the broker also waits for the disk.
//
// D4. A broker with a data directory neither compacts nor deletes while it runs. kfake compacts a partition by removing
// its segments and writing new ones, and a kill between the two would lose the whole group table.
//
// D5. What does not survive a kill is the memory of producer sequences, so a producer in another process that repeats
// an unanswered batch to the restarted broker may write it twice.
package devstack
