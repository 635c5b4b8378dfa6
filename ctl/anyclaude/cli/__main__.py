"""`python -m anyclaude.cli` is `anyclaudectl`."""

from anyclaude.cli.main import main

if __name__ == "__main__":
    main()
