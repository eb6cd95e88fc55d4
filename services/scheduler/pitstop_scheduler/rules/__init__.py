"""The rules of `decide`, by who speaks."""
