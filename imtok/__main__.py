"""`python -m imtok` is `imtok`."""

from imtok.cli import main

if __name__ == "__main__":
    main()
