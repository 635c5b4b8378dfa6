"""Caches in one file: written by `cache export`, read by `cache import` under another home.

    head       magic, format version, header length, checksum of all three and the header
    header     JSON: the fingerprint that the caches are valid under, and conversations by name
    segments   for each a tag and a length, then a record as the disk tier writes it
    end        another tag, and how many segments there were

Parents stand before children. Every byte is covered: by the head's checksum, by a record's own, or
by having to be what it is. Nothing is compressed, so nothing grows when it is read. Reading trusts
no number: the whole file is verified, and every segment compared with what this model's caches look
like, before the first of them is taken over. Checksums tell accidents, not forgers: whoever wrote a
file that passes could have put any numbers into it, which `cache verify` finds.
"""
