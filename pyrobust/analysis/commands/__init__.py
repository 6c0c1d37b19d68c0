"""The sections of the pages that ``pyrobust analyse`` writes, one command a file."""
