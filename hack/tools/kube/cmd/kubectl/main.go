// Kubectl is kubectl of the module in go.mod: k8s.io/kubectl has the commands and no main package, and
// k8s.io/kubernetes, which has one, would bring 31 modules with it.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	"k8s.io/kubectl/pkg/cmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		cmdutil.CheckErr(err) // exits with the code that the error asks for
		os.Exit(1)
	}
}
