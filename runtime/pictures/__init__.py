"""Pictures: their type, and reading and writing image files."""
