"""Pictures: what one is here, and how it is read from and written to files."""
