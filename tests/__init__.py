"""The tests of hubgate; `tests.lab` holds the servers they need."""
