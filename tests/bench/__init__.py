"""Benches: ratios within one run, never absolute times, never part of the tests."""
