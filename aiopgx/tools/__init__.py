"""What stands around the library: a throw-away server, measuring, the demo.

The library itself never imports from here.
"""
