"""Writes a page as ``report.md`` and ``report.html`` into a folder."""

from __future__ import annotations

from pathlib import Path

from ondevice.report.html import page_html
from ondevice.report.markdown import page_markdown
from ondevice.report.page import Page
from ondevice.run.files import make_folder, write_atomic, write_error

__all__ = ["write_page"]


def write_page(page: Page, folder: Path) -> tuple[Path, Path]:
    """The Markdown and the HTML file. Raises ResourceError or DataError where they cannot be written."""
    markdown, html = folder / "report.md", folder / "report.html"
    try:
        make_folder(folder)
        write_atomic(markdown, page_markdown(page).encode())
        write_atomic(html, page_html(page).encode())
    except OSError as error:
        raise write_error(folder, error) from error
    return markdown, html
