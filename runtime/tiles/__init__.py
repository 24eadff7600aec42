"""Tiles: where they lie, the one loop that runs them, and many images through it."""
