"""Benchmarks: commands that print JSON, and the tables made from it."""
