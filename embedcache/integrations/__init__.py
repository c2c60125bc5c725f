"""What connects caches to other programs' libraries. Nothing in the rest of the package imports from here."""
