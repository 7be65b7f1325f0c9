// Command compare is a plain election with etcd's own Go library, as its documentation shows it: what the benchmark
// compares metad's hand-over with.
//
//	compare ENDPOINTS ELECTION ID
//
// It prints `queued NS` when its candidacy is written and `leading NS` when Campaign has returned, stamped on
// CLOCK_BOOTTIME. On SIGTERM it resigns, closes its session and exits.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"golang.org/x/sys/unix"
)

const (
	leaseSecs    = 15
	dialTimeout  = 5 * time.Second
	pollInterval = 10 * time.Millisecond
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: compare ENDPOINTS ELECTION ID")
	}
	if err := run(strings.Split(os.Args[1], ","), os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func run(endpoints []string, name, id string) error {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: dialTimeout})
	if err != nil {
		return err
	}
	defer client.Close()
	session, err := concurrency.NewSession(client, concurrency.WithTTL(leaseSecs))
	if err != nil {
		return err
	}
	defer session.Close()
	go sayQueued(client, fmt.Sprintf("%s/%x", name, session.Lease()))
	election := concurrency.NewElection(session, name)
	if err := election.Campaign(context.Background(), id); err != nil {
		return err
	}
	say("leading")
	select {
	case <-asked:
		return election.Resign(context.Background())
	case <-session.Done():
		return fmt.Errorf("%s has lost its session", id)
	}
}

// sayQueued waits until the candidate's key is written: Campaign itself does not tell.
func sayQueued(client *clientv3.Client, key string) {
	for {
		found, err := client.Get(context.Background(), key, clientv3.WithCountOnly())
		if err != nil {
			log.Fatal(err)
		}
		if found.Count > 0 {
			say("queued")
			return
		}
		time.Sleep(pollInterval)
	}
}

func say(what string) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		log.Fatal(err)
	}
	fmt.Println(what, now.Nano())
}
