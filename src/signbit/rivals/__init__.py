"""The competition: full-precision and 8-bit networks in other engines, and a fair comparison."""
