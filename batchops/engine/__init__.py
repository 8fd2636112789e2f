"""The only effects: gather what is wanted and what is recorded, and carry out a plan against the provider."""
