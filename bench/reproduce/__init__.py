"""The seeds' tables and figures, made again: one command each, the paper's number beside ours."""
