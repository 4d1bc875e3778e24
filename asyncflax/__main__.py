"""`python -m asyncflax`, the same as the program `asyncflax`."""

from asyncflax.commands import main

if __name__ == "__main__":
    main()
