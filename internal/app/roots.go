package app

import (
	// The images are made from scratch and hold no CAs. These are used where the system has none: for functions behind
	// https, and for an external NATS behind tls without WEIR_NATS_CA_FILE. It is here because every service of Weir
	// links app, and a library should not. TestRootsWithoutASystem guards it.
	_ "golang.org/x/crypto/x509roots/fallback"
)
