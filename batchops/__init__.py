"""batchops: infrastructure as code for LLM batch jobs.

The map: `spec` is what users write, `request` turns rows into requests, `plan` decides, `store` remembers,
`providers` answer, `engine` acts, `results` reads back, `views` and `cli` show. See docs/architecture.md.
"""

__version__ = "0.3.0"
