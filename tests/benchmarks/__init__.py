"""Side-by-side timings: `python -m tests.benchmarks` runs all of them, each script also runs alone."""
