"""``python -m hardy`` is ``hardy``."""

from hardy.cli import main

if __name__ == "__main__":
    main()
