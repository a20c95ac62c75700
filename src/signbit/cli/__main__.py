"""``python -m signbit.cli``."""

from signbit.cli.app import main

if __name__ == "__main__":
    main()
