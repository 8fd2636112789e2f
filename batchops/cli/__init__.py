"""The command line: one verb a file. A verb reads flags, calls the floors below, and chooses an exit code."""
