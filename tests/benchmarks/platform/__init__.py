"""Benchmarks of the platform as it runs by itself: how long an upload takes, how fair it is, how it grows."""
