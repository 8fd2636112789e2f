"""Answers read back: relations over a snapshot, sinks, SQL, and the life of jobs and rows. Reads only."""
