"""What every HTML page of the package shares: its style, its templates, its charts and how it writes numbers."""
