"""What we remember: the state file, its tables, transactions, lease and answer files."""
