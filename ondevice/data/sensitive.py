"""Text that had better not be learned: keys, e-mail addresses, payment cards. Says what kind, never the text itself."""

from __future__ import annotations

import re

__all__ = ["sensitive_kinds"]

_KEYS = {
    "a private key": r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----",
    "an access key of AWS": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a token of GitHub": r"\b(?:gh[pousr]_[0-9A-Za-z]{36,}|github_pat_[0-9A-Za-z_]{50,})\b",
    "a key of Google": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "a token of Slack": r"\bxox[abprs]-[0-9A-Za-z-]{10,}",
    "a token of Hugging Face": r"\bhf_[0-9A-Za-z]{30,}\b",
    "an API key": r"\bsk-(?:[a-z]+-)*[0-9A-Za-z_]{20,}\b",
    "a signed token (JWT)": r"\beyJ[0-9A-Za-z_-]{8,}\.eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}",
    "a password": r"(?i)\b(?:password|passwd|api[_-]?key|secret)\b[\"']?\s*[:=]\s*[\"']?[^\s\"',}]{8,}",
}
_PATTERNS = {kind: re.compile(pattern) for kind, pattern in _KEYS.items()}
_MAIL = re.compile(r"\b[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b")
_NO_ONES = re.compile(r"@(?:[\w-]+\.)*(?:example\.(?:com|org|net)|(?:example|invalid|test|localhost))\b", re.IGNORECASE)
_DIGITS = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.]|[ -]\d)")


def sensitive_kinds(text: str) -> list[str]:
    """What kinds of sensitive text there are, each once.

    >>> sensitive_kinds("pay with 4111 1111 1111 1111 or write to ann@firm.org")
    ['an e-mail address', 'the number of a payment card']
    """
    found = [kind for kind, pattern in _PATTERNS.items() if pattern.search(text)]
    if any(not _NO_ONES.search(mail[0]) for mail in _MAIL.finditer(text)):
        found.append("an e-mail address")
    if any(_is_card(number[0]) for number in _DIGITS.finditer(text)):
        found.append("the number of a payment card")
    return found


def _is_card(number: str) -> bool:
    """Whether the digits are as many as a card has, begin as one does and pass Luhn's check."""
    digits = [int(letter) for letter in number if letter.isdigit()]
    if digits[0] not in (2, 3, 4, 5, 6) or len(set(digits)) == 1:
        return False
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0
