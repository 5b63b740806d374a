"""Side by side with other packages, in time and memory, and what tests and benchmarks need beside the library."""
