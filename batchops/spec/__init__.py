"""What the user writes: YAML job specs, read, checked and formatted. Knows no row, no state, no provider."""
