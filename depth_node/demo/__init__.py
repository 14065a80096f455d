"""The demo: a recording played to the real node over DDS, and what came out of it."""
