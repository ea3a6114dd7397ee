"""The machine grade: boxes that are whole Linux systems of their own, with real disks, a real docker and a real registry.

Needs Linux, root and a few of Debian's packages; `ground` says what is missing. It costs about a gigabyte of disk, once.
"""
