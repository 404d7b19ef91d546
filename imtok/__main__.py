"""`python -m imtok` is `imtok`, and it begins here, so that signals are handled before anything is imported."""

from imtok.signals import end_on_signals


def main() -> None:
    """Run the command line."""
    end_on_signals()
    from imtok.cli import main as run

    run()


if __name__ == "__main__":
    main()
