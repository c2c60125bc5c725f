"""``python -m embedcache`` is the command ``embedcache``."""

from embedcache.cli import main

if __name__ == "__main__":
    main()
