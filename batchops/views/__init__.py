"""Plan, diagnostics and events as text: human, JSON, markdown. Pure: values in, text out."""
