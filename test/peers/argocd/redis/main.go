// Command redis serves the Redis protocol on the loopback address that is its argument: the cache
// that Argo CD needs, in memory, by the library that Argo CD's own tests use.
package main

import (
	"log"
	"os"
	"time"

	"github.com/alicebob/miniredis/v2"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: redis ADDRESS")
	}
	server := miniredis.NewMiniRedis()
	if err := server.StartAddr(os.Args[1]); err != nil {
		log.Fatal(err)
	}
	// Its keys expire by a clock of its own, which somebody has to move.
	last := time.Now()
	for now := range time.Tick(200 * time.Millisecond) {
		server.FastForward(now.Sub(last))
		last = now
	}
}
