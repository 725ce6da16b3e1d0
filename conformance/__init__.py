"""Autobahn, the conformance suite, over every backend, codec and role: `make conformance`."""
