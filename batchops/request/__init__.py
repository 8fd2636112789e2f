"""A row becomes a request: templates, endpoints, canonical bodies and their digests. Pure but for the source query."""
