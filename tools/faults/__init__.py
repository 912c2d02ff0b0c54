"""Fault campaigns: real processes, disks and files are broken in every way we know, and what is left is compared.

Run by ``tools/fault_campaign``; `table` holds what a part gives back. The product does not know any of this.
"""
