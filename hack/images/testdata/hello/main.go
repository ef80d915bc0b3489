// Command hello is a small main for the tests.
package main

import "os"

func main() { os.Stdout.WriteString("hello\n") }
