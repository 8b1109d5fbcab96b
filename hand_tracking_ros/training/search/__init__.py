"""Networks as fast as a device allows: measured tables, and searches by them (docs/search.md)."""
