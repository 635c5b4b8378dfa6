"""`anyclaudectl doctor`: checks of this machine and installation; `checks.py` lists them."""
