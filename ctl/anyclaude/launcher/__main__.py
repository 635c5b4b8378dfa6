"""`python -m anyclaude.launcher` is `anyclaude`."""

from anyclaude.launcher.main import main

if __name__ == "__main__":
    main()
