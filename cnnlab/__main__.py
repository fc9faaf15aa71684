"""`python -m cnnlab`: the same as `cnnlab`."""

from cnnlab.cli import main

if __name__ == "__main__":
    main()
