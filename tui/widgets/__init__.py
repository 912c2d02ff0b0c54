"""Widgets: they hold a run and a view, and paint again only when what they would say has changed."""
