//go:build tools

// Package h2spec pins the conformance suite that the tests build; it has no code of its own.
package h2spec

import _ "github.com/summerwind/h2spec/cmd/h2spec"
