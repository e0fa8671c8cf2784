"""What tools/check_parity.py compares, a kind of golden a module."""
