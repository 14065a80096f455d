"""Measurements that end in result files: ratios of one interleaved run, with the machine."""
