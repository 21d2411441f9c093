"""``python -m hardy`` is ``hardy``: the current folder, which ``-m`` puts first on the path, holds nobody's modules."""

import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
        del sys.path[0]
    from hardy.cli import main

    main()
