//! Benchmarks of BLISS and of its peers, in one run.
