// Command etcd is the etcd server as its own project builds it. The tests run it beside the distribution's etcd,
// which is years behind; v3.5 and v3.6 pin one release each and share this file by a link.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
