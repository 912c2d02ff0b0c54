"""Views: pure functions from a run, a size and a look to Rich's Text. They know nothing of Textual, files or clocks."""
