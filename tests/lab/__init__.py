"""The lab: every server that a test, a bench or a person needs to try hubgate on one machine.

    hub.py     a Hub that answers like huggingface.co and misbehaves on demand
    slapd.py   a directory with people and groups (the real slapd)
    nginx.py   nginx with the module, its configuration and its command
    world.py   all of them together, in one folder, on free loopback ports
    ca.py      certificates

`python3 -m tests.lab up` starts a world for a person, `down` ends it.  Only the standard library is used.
"""
