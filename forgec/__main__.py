"""``python -m forgec``: the command line."""

from forgec.cli import main

if __name__ == "__main__":
    main()
