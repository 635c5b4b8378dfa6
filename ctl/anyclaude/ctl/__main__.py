"""`python -m anyclaude.ctl` is `anyclaudectl`."""

from anyclaude.ctl.main import main

if __name__ == "__main__":
    main()
