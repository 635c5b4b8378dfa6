"""`python -m anyclaude.cli` is `anyclaudectl`."""

from anyclaude.cli.main import run

if __name__ == "__main__":
    run()
