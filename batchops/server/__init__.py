"""The embedded Files+Batches API: one program that stores files, validates and runs batches, and answers their lines.

`embedded.ensure_served` starts it inside this process for the local provider; `cli/serve.py` runs it on its own. It
knows nothing of jobs, state or providers: whoever speaks the API to it is a client like any other.
"""
