"""What `ignn WORD` runs, one module a word; each has a `main(argv)` that returns the exit code."""
