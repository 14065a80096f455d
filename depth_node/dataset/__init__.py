"""Recordings as something to learn from: topics, camera poses, frames, pairs, scale."""
