//go:build !unix

package stream

import (
	"errors"
	"os"
)

// flock refuses: without a lock that ends with the process, two brokers could
// write into one folder.
func flock(*os.File) error {
	return errors.New("this system has no file locks that the broker knows; run it in memory")
}
