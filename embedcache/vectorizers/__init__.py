"""Texts to vectors through a cache: what is stored is read, what is missing computed once and stored."""
